package worker_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"bulkmail/envelope"
	"bulkmail/relay"
	"bulkmail/relay/sink"
	"bulkmail/subjects"
	"bulkmail/worker"
)

// What one recipient may draw from a relay that takes everybody else.
var poisons = map[string]string{
	"421 at RCPT":          "RCPT:poison@*=421 4.3.0 try again later",
	"421 at the dot":       "DATA:poison@*=421 4.3.2 service not available",
	"452 4.3.1 at the dot": "DATA:poison@*=452 4.3.1 insufficient system storage",
	"auth at RCPT":         "RCPT:poison@*=550 5.7.1 RESOLVER.RST.AuthRequired; authentication required",
}

// impatient has the pool try a relay that is unwell again soon, so that a test need
// not wait for it.
var impatient = relay.Options{Backoff: 20 * time.Millisecond, MaxBackoff: 100 * time.Millisecond, DialBackoff: 5 * time.Millisecond}

// One recipient that makes every relay stumble costs the others next to nothing:
// it alone is deferred, is counted an attempt each time, and expires.
func TestARecipientThatMakesRelaysStumbleIsDeferredAloneAndExpires(t *testing.T) {
	t.Parallel()
	for name, rule := range poisons {
		for relays := 1; relays <= 2; relays++ {
			t.Run(fmt.Sprintf("%s, %d relays", name, relays), func(t *testing.T) {
				t.Parallel()
				const batches, size = 20, 100
				h := newHouse(t)
				var all [][]string
				var ledgers []*ledger
				for i := range batches {
					list := people(size, fmt.Sprintf("d%d.test", i), "shared.test")
					for j := range list {
						list[j] = fmt.Sprintf("b%d-%s", i, list[j])
					}
					all = append(all, list)
					if i == batches/2 {
						list = slices.Insert(slices.Clone(list), size/2, "poison@shared.test")
					}
					id := fmt.Sprint(i)
					h.publish(t, "c", envelope.Batch{ID: id, Recipients: envelope.To(list...)})
					ledgers = append(ledgers, h.ledger(t, "c", id))
				}
				var offices []*postOffice
				var over []relay.Relay
				for i := range relays {
					post := openSink(t, sink.Options{}, rule)
					offices = append(offices, post)
					over = append(over, post.relay(t, func(c *relay.Config) { c.Name, c.MaxMessagesPerRobin = fmt.Sprint("r", i), 500 }))
				}
				e := h.hireWith(t, worker.Options{Name: "w", RetryFor: 2 * time.Second, RetryDelays: worker.Schedule{200 * time.Millisecond}}, impatient, over...)
				for i, l := range ledgers {
					l.until(subjects.Done)
					want := outcome{}
					if i == batches/2 {
						want = l.newest["poison@shared.test"]
						delete(l.newest, "poison@shared.test")
						if want.status != subjects.Expired || want.attempt < 2 {
							t.Errorf("the poison is %+v", want)
						}
					}
					if got := l.tally(); got[subjects.Accepted] != size || len(got) != 1 {
						t.Errorf("batch %d: %v", i, got)
					}
				}
				e.leave(t)
				seen, envelopes, connections := map[string]int{}, int64(0), int64(0)
				for _, post := range offices {
					for to, n := range post.seen() {
						seen[to] += n
					}
					envelopes += post.Counts().Transactions
					connections += post.Counts().Connections
				}
				onceEach(t, seen, all...)
				// Without it there are two envelopes a batch.
				if envelopes > 2*2*batches || connections > 2*batches {
					t.Errorf("%d envelopes over %d connections", envelopes, connections)
				}
			})
		}
	}
}

// What goes back to the queue, as no relay can take anything, is met anew. Those
// whom a relay stumbled over do not go back without a verdict, or they would do so
// for ever.
func TestRecipientsOverWhomTheOnlyRelayStumblesAreDeferredHoweverLongItIsParked(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	post := openSink(t, sink.Options{}, "RCPT:*=421 4.3.0 try again later")
	l := h.ledger(t, "c", "1")
	h.publish(t, "c", envelope.Batch{ID: "1", Recipients: envelope.To("poison@a.test", "poison@b.test", "poison@c.test")})
	h.hireWith(t, worker.Options{Name: "w"}, relay.Options{Backoff: time.Hour, MaxBackoff: time.Hour}, post.relay(t, oneSession))
	entry := l.until(subjects.Recorded)
	if got := l.tally(); entry.Attempt != 1 || got[subjects.Deferred] == 0 || len(got) != 1 {
		t.Errorf("attempt %d: %v", entry.Attempt, l.newest)
	}
}

// A relay that was set up wrong, or is on a list, says so to each recipient.
var wrongRelays = map[string]string{
	"Postfix does not relay":          "RCPT:*=554 5.7.1 <x@example.net>: Relay access denied",
	"Postfix, for now":                "RCPT:*=454 4.7.1 <x@example.net>: Relay access denied",
	"Exchange does not relay":         "RCPT:*=550 5.7.1 Unable to relay",
	"Exchange, a receive connector":   "RCPT:*=550 5.7.54 SMTP; Unable to relay recipient in non-accepted domain",
	"Exim does not relay":             "RCPT:*=550 relay not permitted",
	"Sendmail does not relay":         "RCPT:*=550 5.7.1 <x@example.net>... Relaying denied",
	"qmail does not relay":            "RCPT:*=553 sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)",
	"on a blocklist":                  "RCPT:*=554 5.7.1 Service unavailable; Client host [192.0.2.1] blocked using zen.spamhaus.org",
	"on a blocklist, said at the dot": "DATA:*=554 5.7.1 Service unavailable; Client host [192.0.2.1] blocked using zen.spamhaus.org",
	"administrators":                  "RCPT:*=550 Administrative prohibition",
}

// What another relay may see otherwise.
var pickyRelays = map[string]string{
	"the sender at MAIL":          "MAIL:*=550 5.1.8 bad sender",
	"the sender's owner":          "MAIL:*=553 5.7.1 <news@example.com>: Sender address rejected: not owned by user bulk",
	"the sender, said to RCPT":    "RCPT:*=550 5.1.8 <news@example.com>: Sender address rejected: Domain not found",
	"the sender, said at the dot": "DATA:*=554 Message rejected: Email address is not verified.",
	"MAIL, always put off":        "MAIL:*=451 4.7.1 try again later",
	"the content":                 "DATA:*=550 5.7.1 Message rejected as spam",
}

const wrongRelay = "wrong"

// acceptedByTheOther sends batches over a relay that is wrong and one that is
// right. Everybody must be accepted in the first attempt.
func acceptedByTheOther(t *testing.T, wrong relay.Relay, message string) relay.Status {
	t.Helper()
	const batches, size = 30, 20
	h := newHouse(t)
	post := openSink(t, sink.Options{Delay: 5 * time.Millisecond}) // so that the other one is asked
	var all [][]string
	var ledgers []*ledger
	for i := range batches {
		all = append(all, people(size, fmt.Sprintf("d%d.test", i)))
		id := fmt.Sprint(i)
		h.publish(t, "c", envelope.Batch{ID: id, Recipients: envelope.To(all[i]...), Message: message})
		ledgers = append(ledgers, h.ledger(t, "c", id))
	}
	wrong.Config.Name = wrongRelay
	wrong.Config.MaxMessagesPerRobin = size
	right := post.relay(t, func(c *relay.Config) { c.Name, c.MaxMessagesPerRobin = "right", size })
	e := h.hireWith(t, worker.Options{Name: "w"}, relay.Options{Backoff: time.Minute}, wrong, right)
	for i, l := range ledgers {
		done := l.until(subjects.Done)
		if got := l.tally(); done.Attempt != 1 || got[subjects.Accepted] != size || len(got) != 1 {
			t.Errorf("batch %d after attempt %d: %v", i, done.Attempt, got)
		}
	}
	status := e.pool.Status()[0]
	e.leave(t)
	onceEach(t, post.seen(), all...)
	return status
}

func TestARelayThatIsWrongBesideAHealthyOneCostsNobodyAnything(t *testing.T) {
	t.Parallel()
	for _, rules := range []map[string]string{wrongRelays, pickyRelays} {
		for name, rule := range rules {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				post := openSink(t, sink.Options{}, rule)
				status := acceptedByTheOther(t, post.relay(t), "")
				_, text, _ := strings.Cut(rule, "=")
				words := strings.Fields(text)
				if status.State != relay.Parked || status.LastError == nil || !strings.Contains(status.LastError.Error(), words[len(words)-1]) {
					t.Errorf("the wrong one is %s, %v", status.State, status.LastError)
				}
				if n := post.Counts().Accepted; n > 0 {
					t.Errorf("it took %d", n)
				}
			})
		}
	}
}

// Offers that are missing, and a message that wants them.
var poorRelays = map[string]struct{ offers, message string }{
	"no 8BITMIME": {"SIZE 1000000", "From: a@example.com\nSubject: t\nContent-Type: multipart/signed; boundary=b; protocol=\"application/pgp-signature\"\n\n" +
		"--b\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\nGrüße\n--b\nContent-Type: application/pgp-signature\n\nx\n--b--\n"},
	"no SMTPUTF8": {"8BITMIME", "From: grüße@example.com\nSubject: t\n\nhi\n"},
	"SIZE":        {"SIZE 100", "From: a@example.com\nSubject: t\n\n" + strings.Repeat("hello\n", 50)},
}

func TestWhatOneRelayCannotCarryAnotherOneDoes(t *testing.T) {
	t.Parallel()
	for name, c := range poorRelays {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if status := acceptedByTheOther(t, smtpRelay(t, wrongRelay, offering(t, c.offers)), c.message); status.Messages > 0 {
				t.Errorf("%+v", status)
			}
		})
	}
}

// Where the relay that is wrong is the only one, the batch waits until that is put
// right, and the relay says what is wrong.
func TestTheOnlyRelayThatIsWrongKeepsEverybodyWaitingAndSaysWhy(t *testing.T) {
	t.Parallel()
	for name, rule := range wrongRelays {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			post := openSink(t, sink.Options{}, rule)
			only(t, post.relay(t), "", func() { post.SetRules(nil) })
		})
	}
	for name, c := range poorRelays {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			only(t, smtpRelay(t, "poor", offering(t, c.offers)), c.message, nil)
		})
	}
}

// only sends a batch over one relay that will not have it until it is mended; nil:
// it never is.
func only(t *testing.T, r relay.Relay, message string, mend func()) {
	t.Helper()
	const size = 250
	h := newHouse(t)
	list := people(size, "a.test", "b.test")
	h.publish(t, "c", envelope.Batch{ID: "1", Recipients: envelope.To(list...), Message: message})
	l := h.ledger(t, "c", "1")
	e := h.hireWith(t, worker.Options{Name: "w"}, impatient, r)
	e.log.wait(t, "relay is parked", 3)
	if status := e.pool.Status()[0]; status.LastError == nil || status.Messages > 0 {
		t.Errorf("%+v", status)
	}
	if mend == nil {
		e.leave(t)
		l.until(subjects.Claimed)
		if n := h.queued(t); n != 1 {
			t.Errorf("%d batches wait, want one", n)
		}
		return
	}
	mend()
	l.until(subjects.Done)
	if got := l.tally(); got[subjects.Accepted] != size || len(got) != 1 {
		t.Errorf("%v", got)
	}
}

// offering is a server that takes everything, and offers what it is told to.
func offering(t *testing.T, offers string) (addr string) {
	t.Helper()
	return listening(t, func(conn net.Conn) { take(conn, offers) })
}

// listening is a server of one's own.
func listening(t *testing.T, serve func(net.Conn)) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			stop := context.AfterFunc(t.Context(), func() { _ = conn.Close() })
			serving.Go(func() { defer stop(); serve(conn) })
		}
	})
	t.Cleanup(func() { _ = l.Close(); serving.Wait() })
	return l.Addr().String()
}

// take takes everything on a connection.
func take(conn net.Conn, offers string) {
	defer func() { _ = conn.Close() }()
	_, _ = fmt.Fprint(conn, "220 mx.test\r\n")
	data := false
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		verb, _, _ := strings.Cut(lines.Text(), " ")
		reply := "250 ok"
		switch {
		case data && verb != ".":
			continue
		case data:
			data = false
		case verb == "EHLO":
			reply = "250-mx.test\r\n250 " + offers
		case verb == "DATA":
			data, reply = true, "354 go on"
		case verb == "QUIT":
			return
		}
		_, _ = fmt.Fprint(conn, reply+"\r\n")
	}
}
