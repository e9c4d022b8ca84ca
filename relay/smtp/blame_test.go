package smtp

import (
	"strings"
	"testing"
)

// TestARefusalBlamesWhomItIsAbout goes through what real servers say.
func TestARefusalBlamesWhomItIsAbout(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		to    command
		reply string
		want  Blame
	}{
		// Postfix
		{cmdRCPT, "550 5.1.1 <ann@example.net>: Recipient address rejected: User unknown in local recipient table", BlameRecipient},
		{cmdRCPT, "554 5.7.1 <ann@example.net>: Relay access denied", BlameRelay},
		{cmdRCPT, "454 4.7.1 <ann@example.net>: Relay access denied", BlameRelay},
		{cmdRCPT, "554 5.7.1 <ann@example.net>: Recipient address rejected: Access denied", BlameRecipient},
		{cmdRCPT, "554 5.7.1 Service unavailable; Client host [192.0.2.1] blocked using zen.spamhaus.org; https://www.spamhaus.org/query/ip/192.0.2.1", BlameRelay},
		{cmdRCPT, "554 5.7.1 <unknown[192.0.2.1]>: Client host rejected: Access denied", BlameRelay},
		{cmdRCPT, "450 4.7.25 Client host rejected: cannot find your hostname, [192.0.2.1]", BlameRelay},
		{cmdRCPT, "504 5.5.2 <host>: Helo command rejected: need fully-qualified hostname", BlameRelay},
		{cmdRCPT, "450 4.1.8 <news@nowhere.test>: Sender address rejected: Domain not found", BlameEnvelope},
		{cmdRCPT, "553 5.7.1 <news@example.com>: Sender address rejected: not owned by user ann", BlameEnvelope},
		{cmdRCPT, "450 4.2.0 <ann@example.net>: Recipient address rejected: Greylisted", BlameRecipient},
		{cmdRCPT, "450 4.1.1 <ann@example.net>: Recipient address rejected: unverified address: host down", BlameRecipient},
		{cmdRCPT, "452 4.2.2 The email account that you tried to reach is over quota", BlameRecipient},
		{cmdRCPT, "556 5.1.10 null MX", BlameRecipient},
		{cmdRCPT, "451 4.3.0 <ann@example.net>: Temporary lookup failure", BlameRecipient},
		// Exchange
		{cmdRCPT, "550 5.7.1 Unable to relay", BlameRelay},
		{cmdRCPT, "550 5.7.54 SMTP; Unable to relay recipient in non-accepted domain", BlameRelay},
		{cmdRCPT, "550 5.7.1 RESOLVER.RST.AuthRequired; authentication required", BlameRelay},
		{cmdRCPT, "550 5.4.1 Recipient address rejected: Access denied", BlameRecipient},
		{cmdRCPT, "550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup", BlameRecipient},
		{cmdRCPT, "530 5.7.57 Client not authenticated to send mail", BlameRelay},
		// Exim, Sendmail, qmail, others
		{cmdRCPT, "550 relay not permitted", BlameRelay},
		{cmdRCPT, "550 Administrative prohibition", BlameRelay},
		{cmdRCPT, "550 Unrouteable address", BlameRecipient},
		{cmdRCPT, "550 5.7.1 <ann@example.net>... Relaying denied", BlameRelay},
		{cmdRCPT, "550 5.7.1 we do not relay", BlameRelay},
		{cmdRCPT, "553 sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)", BlameRelay},
		{cmdRCPT, "550 5.7.1 Access denied", BlameRelay},
		{cmdRCPT, "550 5.1.1 <ann@relay.example.net>: not found", BlameRecipient},
		{cmdRCPT, "550 relay.example.net said: no such user, not known here", BlameRecipient},
		{cmdRCPT, "550 Mailbox unavailable", BlameRecipient},
		{cmdRCPT, "550 no such user here", BlameRecipient},
		{cmdRCPT, "551 user not local", BlameRecipient},
		{cmdRCPT, "550 5.3.2 system not accepting messages", BlameRelay},
		{cmdRCPT, "550 5.1.0 <news@example.com>: Sender address rejected: User unknown in virtual alias table", BlameEnvelope},
		{cmdRCPT, "550 Sender verify failed", BlameEnvelope},
		{cmdRCPT, "550 5.5.0 Invalid recipient", BlameRecipient},
		{cmdRCPT, "552 5.2.2 The email account that you tried to reach is over quota", BlameRecipient},
		{cmdRCPT, "550 5.2.1 Mailbox disabled, not accepting messages", BlameRecipient},
		{cmdRCPT, "550 5.7.124 user not in allowed-senders list of group", BlameRecipient},
		{cmdRCPT, "550 5.7.64 TenantAttribution; Relay Access Denied", BlameRelay},
		{cmdRCPT, "550 5.7.705 Service unavailable. Access denied, tenant has exceeded threshold", BlameRelay},
		{cmdRCPT, "550 #5.7.1 Your access to submit messages to this e-mail system has been rejected.", BlameRelay},
		// Our address, our account
		{cmdMAIL, "550 5.7.606 Access denied, banned sending IP [192.0.2.1].", BlameRelay},
		{cmdMAIL, "550 5.7.0 Mail relay denied [192.0.2.1]. Invalid credentials for relay", BlameRelay},
		{cmdEnd, "554 Message rejected: Sending paused for this account.", BlameRelay},
		{cmdEnd, "554 Access denied: User `arn:aws:iam::1:user/x' is not authorized to perform `ses:SendRawEmail'", BlameRelay},
		{cmdRCPT, "550 5.4.5 Daily user sending quota exceeded.", BlameRelay},
		{cmdEnd, "550 5.4.5 Daily user sending limit exceeded.", BlameRelay},
		{cmdEnd, "550 Unauthenticated senders not allowed", BlameRelay},
		{cmdEnd, "554 Transaction failed: Address blacklisted.", BlameEnvelope},
		{cmdEnd, "550 5.7.26 Unauthenticated email from example.com is not accepted due to domain's DMARC policy.", BlameEnvelope},
		{cmdEnd, "550 5.7.60 SMTP; Client does not have permissions to send as this sender", BlameEnvelope},
		{cmdEnd, "550 The from address does not match a verified Sender Identity.", BlameEnvelope},
		// The sender, the message
		{cmdMAIL, "550 5.7.1 Client host rejected: Access denied", BlameRelay},
		{cmdMAIL, "550 5.1.8 bad sender", BlameEnvelope},
		{cmdMAIL, "550 not today", BlameEnvelope},
		{cmdMAIL, "451 4.7.1 try later", BlameEnvelope},
		{cmdMAIL, "552 5.3.4 message size exceeds fixed limit", BlameRelay},
		{cmdMAIL, "550 5.6.7 SMTPUTF8 is required and not offered", BlameRelay},
		{cmdDATA, "451 4.3.0 not now", BlameEnvelope},
		{cmdEnd, "554 Message rejected: Email address is not verified. The following identities failed the check in region EU-WEST-1: news@example.com", BlameEnvelope},
		{cmdEnd, "554 5.7.1 Message rejected as spam", BlameEnvelope},
		{cmdEnd, "554 5.7.1 Service unavailable; Client host [192.0.2.1] blocked using dnsbl.test", BlameRelay},
		{cmdEnd, "451 4.3.0 queue file write error", BlameRecipient},
		{cmdEnd, "450 4.7.1 greylisted", BlameRecipient},
	} {
		a, _, text, err := parseReplyLine([]byte(c.reply))
		if err != nil {
			t.Fatal(err)
		}
		r := answer{a, text}.reply(c.to)
		if got := blamed(c.to, r, strings.ToLower(r.Text)); got != c.want {
			t.Errorf("%s to %s blames %d, want %d", c.reply, c.to, got, c.want)
		}
	}
}
