package bounce

import (
	"testing"
)

func TestClassifySaysWhatARefusalMeans(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		refusal Refusal
		want    Reason
		delayed bool
	}{
		// Replies to RCPT, as a client meets them at send time.
		{refusal: Refusal{"5.1.1", 550, "<ann@example.net>: Recipient address rejected: User unknown in virtual mailbox table", CommandRcpt}, want: UnknownUser},
		{refusal: Refusal{"", 550, "No such user here", CommandRcpt}, want: UnknownUser},
		{refusal: Refusal{"", 550, "User unknown", CommandRcpt}, want: UnknownUser},
		{refusal: Refusal{"5.1.1", 550, "", CommandRcpt}, want: UnknownUser},
		{refusal: Refusal{"5.4.1", 550, "Recipient address rejected: Access denied. [AM1.prod.outlook.com]", CommandRcpt}, want: UnknownUser},
		{refusal: Refusal{"5.1.0", 550, "Address rejected.", CommandRcpt}, want: UnknownUser},
		{refusal: Refusal{"5.1.1", 550, "<ann@example.net>: inactive email address", CommandRcpt}, want: UnknownUser},
		{refusal: Refusal{"", 550, "<ann@example.net>: Recipient address rejected.", CommandRcpt}, want: UnknownUser},
		{refusal: Refusal{"5.1.10", 556, "Recipient address has null MX", CommandRcpt}, want: UnknownHost},
		{refusal: Refusal{"5.1.2", 550, "", CommandRcpt}, want: UnknownHost},
		{refusal: Refusal{"", 551, "not our customer", CommandRcpt}, want: Moved},
		{refusal: Refusal{"5.1.6", 550, "", CommandRcpt}, want: Moved},
		{refusal: Refusal{"5.2.2", 552, "Mailbox full", CommandRcpt}, want: MailboxFull},
		{refusal: Refusal{"5.1.1", 550, "user is over quota", CommandRcpt}, want: MailboxFull},
		{refusal: Refusal{"5.2.1", 550, "The email account that you tried to reach is disabled.", CommandRcpt}, want: Suspended},
		{refusal: Refusal{"5.7.1", 554, "<ann@example.net>: Relay access denied", CommandRcpt}, want: Policy},
		{refusal: Refusal{"5.7.1", 554, "Service unavailable; Client host [192.0.2.1] blocked using zen.spamhaus.org", CommandRcpt}, want: Blocked},
		{refusal: Refusal{"5.7.26", 550, "Unauthenticated email from example.com is not accepted due to domain's DMARC policy.", CommandData}, want: Authentication},
		{refusal: Refusal{"5.3.4", 552, "Message size exceeds fixed limit", CommandMail}, want: TooLarge},
		{refusal: Refusal{"5.6.0", 554, "", CommandData}, want: Content},
		{refusal: Refusal{"5.7.1", 550, "Message content rejected, spam", CommandData}, want: Content},
		{refusal: Refusal{"", 550, "too many connections from your address", CommandRcpt}, want: Rate},
		// Said of somebody else than the recipient.
		{refusal: Refusal{"5.1.8", 550, "<news@example.com>: Sender address rejected: User unknown", CommandRcpt}, want: Policy},
		{refusal: Refusal{"", 550, "User unknown", CommandMail}, want: Policy},
		{refusal: Refusal{"5.1.1", 550, "host does not exist", CommandConnect}, want: Policy},
		// Not for good.
		{refusal: Refusal{"4.1.1", 450, "<ann@example.net>: Recipient address rejected: User unknown", CommandRcpt}, want: Other, delayed: true},
		{refusal: Refusal{"", 450, "User unknown", CommandRcpt}, want: Other, delayed: true},
		{refusal: Refusal{"4.4.3", 0, "Host or domain name not found. Name service error: try again", CommandUnknown}, want: Network, delayed: true},
		{refusal: Refusal{"4.7.1", 451, "Greylisted, try again later", CommandRcpt}, want: Rate, delayed: true},
		{refusal: Refusal{"4.2.2", 452, "", CommandRcpt}, want: MailboxFull, delayed: true},
		// "User unknown" that means "does not want your mail": after the message, with a
		// status that contradicts it, or without the address.
		{refusal: Refusal{"5.2.0", 550, "Unknown user ann@example.net", CommandData}, want: Policy},
		{refusal: Refusal{"5.7.1", 550, "<ann@example.net>: User unknown", CommandUnknown}, want: Policy},
		{refusal: Refusal{"5.0.0", 550, ": User unknown", CommandUnknown}, want: Policy},
		{refusal: Refusal{"5.0.0", 550, "<ann@example.net>: User unknown", CommandUnknown}, want: UnknownUser},
		// Gateways put their own word before the one they were given.
		{refusal: Refusal{"5.0.0", 0, "5.1.0 - Unknown address error 550-'5.7.1 <b@example.com>... Access denied'", CommandUnknown}, want: Policy},
		{refusal: Refusal{"5.0.0", 0, "5.1.0 - Unknown address error 550-'5.1.1 <ann@example.net>... User unknown'", CommandUnknown}, want: UnknownUser},
		// Words are looked for across lines, never within addresses and URLs.
		{refusal: Refusal{"", 0, "550-5.1.1 The email account that you tried to reach does\n550-5.1.1 not exist. Please try", CommandUnknown}, want: UnknownUser},
		{refusal: Refusal{"5.0.0", 550, "<user.unknown@spam.example> refused, see https://example.net/blacklist/mailbox-full", CommandUnknown}, want: Policy},
		{refusal: Refusal{"", 0, "", CommandUnknown}, want: Other},
		{refusal: Refusal{"", 550, "", CommandRcpt}, want: Other},
	} {
		got := Classify(test.refusal)
		want := Verdict{Bounced, test.want, test.want.Hard()}
		if test.delayed {
			want.Kind = Delayed
		}
		if got != want {
			t.Errorf("%+v\n got %+v\nwant %+v", test.refusal, got, want)
		}
	}
}

func TestClassifyAllocatesNothing(t *testing.T) {
	refusals := []Refusal{
		{"5.1.1", 550, "<ann@example.net>: Recipient address rejected: User unknown", CommandRcpt},
		{"", 0, "550-5.7.26 This mail has been blocked because the sender is unauthenticated.", CommandData},
		{"4.2.0", 450, "something that no rule knows", CommandRcpt},
		{"", 550, "<ann@example.net>: Recipient address rejected.", CommandRcpt},
	}
	for _, r := range refusals {
		if n := testing.AllocsPerRun(100, func() { Classify(r) }); n != 0 {
			t.Errorf("%+v: %v allocations", r, n)
		}
	}
}

func FuzzClassify(f *testing.F) {
	f.Add("5.1.1", 550, "User unknown", uint8(CommandRcpt))
	f.Add("4.4.7", 0, "550 5.1.1 <a@b>... no such user", uint8(CommandUnknown))
	f.Add("", 421, "552-5.2.2 \xff\x00 mailbox full", uint8(CommandData))
	f.Add("5..1", -1, "5.1.1.1 192.5.1.1", uint8(9))
	f.Fuzz(func(t *testing.T, enhanced string, code int, text string, command uint8) {
		r := Refusal{enhanced, code, text, Command(command)}
		v := Classify(r)
		if v != Classify(r) {
			t.Fatal("the same refusal is classified in two ways")
		}
		if v.Hard != v.Reason.Hard() || v.Hard && v.Kind != Bounced || v.Reason == "" {
			t.Fatalf("%+v is %+v", r, v)
		}
		if v.Hard && (r.Command == CommandMail || r.Command == CommandConnect) {
			t.Fatalf("%+v came before the recipient was named, and is %+v", r, v)
		}
	})
}

func BenchmarkClassify(b *testing.B) {
	r := Refusal{"5.1.1", 550, "<ann@example.net>: Recipient address rejected: User unknown in virtual mailbox table", CommandRcpt}
	b.ReportAllocs()
	for b.Loop() {
		Classify(r)
	}
}

func TestWhatIsSaidOfTheSenderTheHostOrTheMessageIsNeverHard(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"550 5.7.1 Helo command rejected: Host not found",
		"450 4.1.8 <news@example.com>: Sender address rejected: Domain not found",
		"553 5.1.8 <news@example.com>... Domain of sender address news@example.com does not exist",
		"550 Verification failed for <news@example.com> No such user here; Sender verify failed",
		"550 5.1.7 The sender's address was syntactically invalid",
		"550 permanent failure for one or more recipients (ann@example.net:blocked)",
		"550 Invalid HELO name (See RFC2821 4.1.1.1)",
		"550 5.7.1 No PTR record: your IP address does not exist in DNS",
		"550 5.7.54 SMTP; Unable to relay recipient in non-accepted domain",
		"553 sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)",
		"554 5.4.6 Too many hops",
		"550 5.7.129 RESOLVER.RST.RestrictedToRecipientsPermission; not authorized to send to recipient",
		"550 5.4.317 Message expired, cannot connect to remote server",
		"550 #5.7.1 Your access to submit messages to this e-mail system has been rejected.",
		"550 User account is overquota",
		"554 5.2.0 STOREDRV.Deliver.Exception:QuotaExceededException",
		"500 5.5.1 Command not recognized",
		"550 Our server does not accept mail from dynamic addresses",
		"535 5.7.8 bad user name or password",
		"550 5.6.1 body type not supported",
		"550 Administrative prohibition",
		"554 5.7.1 Message rejected: unknown user agent, looks like spam",
		"550 5.2.1 The user you are trying to contact is receiving mail at a rate that prevents additional messages",
		"421 4.7.0 Try again later, closing connection. (EHLO)",
		"552 5.2.0 sorry, delivery not authorized, message refused",
		"550 5.7.1 Unknown user",
	} {
		if v := Classify(Refusal{Text: text, Command: CommandUnknown}); v.Hard {
			t.Errorf("%s: %+v", text, v)
		}
	}
}
