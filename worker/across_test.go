package worker_test

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"bulkmail/envelope"
	"bulkmail/relay"
	"bulkmail/relay/sink"
	"bulkmail/relay/smtp"
	"bulkmail/subjects"
	"bulkmail/worker"
)

func ofDomains(n int) func(*relay.Config) {
	return func(c *relay.Config) { c.EnvelopeDomains = cmp.Or(n, relay.None) }
}

// sparse is n recipients, each in a domain of its own.
func sparse(n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf("p@d%d.test", i)
	}
	return list
}

// transactions keeps the recipients of each transaction.
type transactions struct {
	mu  sync.Mutex
	all [][]string
}

func (k *transactions) record(tx sink.Transaction) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.all = append(k.all, tx.Recipients)
}

func TestARelayThatTakesSeveralDomainsGetsSparseOnesTogether(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ domains, limit, want int }{
		{1, 25, 60},
		{10, 25, 6},
		{10, 7, 9},
		{0, 25, 3},
		{0, 0, 1},
	} {
		t.Run(fmt.Sprintf("envelope_domains=%d, envelope_limit=%d", test.domains, test.limit), func(t *testing.T) {
			t.Parallel()
			h, kept := newHouse(t), &transactions{}
			post := openSink(t, sink.Options{Recorder: kept.record})
			h.hire(t, worker.Options{}, post.relay(t, ofDomains(test.domains), func(c *relay.Config) { c.EnvelopeLimit = test.limit }))
			list := sparse(60)
			h.publish(t, "c", envelope.Batch{ID: "1", Recipients: envelope.To(list...)})
			l := h.ledger(t, "c", "1")
			l.until(subjects.Done)
			onceEach(t, post.seen(), list)
			if n := l.tally()[subjects.Accepted]; n != 60 || len(kept.all) != test.want {
				t.Errorf("%d of 60 accepted in %d envelopes, want %d", n, len(kept.all), test.want)
			}
		})
	}
}

func TestEachRecipientOfAnEnvelopeOfManyDomainsHasItsOwnResult(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	post := openSink(t, sink.Options{}, "RCPT:*@d7.test=550 5.1.1 no such user", "RCPT first 1:*@d9.test=451 4.7.1 greylisted")
	h.hire(t, worker.Options{}, post.relay(t, ofDomains(0)))
	list := sparse(20)
	h.publish(t, "c", envelope.Batch{ID: "1", Recipients: envelope.To(list...)})
	l := h.ledger(t, "c", "1")
	if done := l.until(subjects.Done); done.Attempt != 2 {
		t.Errorf("it took %d attempts", done.Attempt)
	}
	for i, r := range list {
		want := outcome{subjects.Accepted, "sink", 250, l.newest[r].text, 1}
		switch i {
		case 7:
			want = outcome{subjects.Rejected, "sink", 550, "no such user", 1}
		case 9:
			want.attempt = 2
		}
		if l.newest[r] != want {
			t.Errorf("of %s is known %+v, want %+v", r, l.newest[r], want)
		}
	}
	onceEach(t, post.seen(), slices.DeleteFunc(list, func(r string) bool { return r == "p@d7.test" }))
}

func TestWhatAServerHadNoRoomForGoesOutByItsDomains(t *testing.T) {
	t.Parallel()
	h, kept := newHouse(t), &transactions{}
	const most = 7 // then 452 4.5.3
	went := make(chan struct{})
	crowded := openSink(t, sink.Options{MaxRcpt: most, Recorder: func(sink.Transaction) {
		select {
		case <-went:
		default:
			close(went)
		}
	}})
	strict := openSink(t, sink.Options{Recorder: func(tx sink.Transaction) {
		kept.record(tx)
		select { // it leaves something to the other one, whoever was first
		case <-went:
		case <-t.Context().Done():
		}
	}})
	name := func(name string) func(*relay.Config) {
		return func(c *relay.Config) { c.Name, c.MaxMessagesPerRobin, c.Connections = name, 20, 1 }
	}
	h.hire(t, worker.Options{}, crowded.relay(t, name("crowded"), ofDomains(0)), strict.relay(t, name("strict")))
	var list []string
	for i := range 30 {
		list = append(list, people(3, fmt.Sprintf("d%d.test", i))...)
	}
	h.publish(t, "c", envelope.Batch{ID: "1", Recipients: envelope.To(list...)})
	l := h.ledger(t, "c", "1")
	if done := l.until(subjects.Done); done.Attempt != 1 {
		t.Errorf("it took %d attempts", done.Attempt)
	}
	seen := crowded.seen()
	if len(seen) == 0 {
		t.Error("nothing went over the relay that takes 7")
	}
	for r, n := range strict.seen() {
		seen[r] += n
	}
	onceEach(t, seen, list)
	for _, recipients := range kept.all {
		_, domain, _ := strings.Cut(recipients[0], "@")
		if i := slices.IndexFunc(recipients, func(r string) bool { return !strings.HasSuffix(r, "@"+domain) }); i >= 0 {
			t.Errorf("%s and %s share an envelope over a relay of one domain", recipients[0], recipients[i])
		}
	}
}

func TestRecipientsThatWantSMTPUTF8ShareNoEnvelopeWithOthers(t *testing.T) {
	t.Parallel()
	h, kept := newHouse(t), &transactions{}
	// Once cut off, twice of one kind still.
	post := openSink(t, sink.Options{MaxRcpt: 3, Recorder: kept.record})
	h.hire(t, worker.Options{}, post.relay(t, ofDomains(0), func(c *relay.Config) { c.Connections = 1 }))
	var list []string
	for i := range 8 {
		list = append(list, fmt.Sprintf("p@d%d.test", i))
	}
	for i := range 8 {
		list = append(list, fmt.Sprintf("ü@d%d.test", i))
	}
	h.publish(t, "c", envelope.Batch{ID: "1", Recipients: envelope.To(list...)})
	h.ledger(t, "c", "1").until(subjects.Done)
	onceEach(t, post.seen(), list)
	for _, recipients := range kept.all {
		if i := slices.IndexFunc(recipients, func(r string) bool { return r[0] == 'p' }); i >= 0 && strings.Contains(strings.Join(recipients, ""), "ü") {
			t.Errorf("an envelope for %v", recipients)
		}
	}
}

// fragile is a relay whose connections break at one recipient.
type fragile struct {
	*memory
	poison string
}

func (f *fragile) Dial(context.Context) (relay.Session, error) {
	return &fragileSession{memorySession{m: f.memory}, f.poison}, nil
}

type fragileSession struct {
	memorySession
	poison string
}

func (s *fragileSession) Send(ctx context.Context, e *smtp.Envelope, next func() *smtp.Envelope) error {
	if slices.Contains(mailboxes(e.Recipients), s.poison) {
		s.dead = true
		return &smtp.Error{MBS: "MBS009"}
	}
	return s.memorySession.Send(ctx, e, next)
}

func TestADomainThatBreaksConnectionsHoldsUpNoOther(t *testing.T) {
	t.Parallel()
	h, post := newHouse(t), &fragile{newMemory(), "p@d7.test"}
	r := post.relay(ofDomains(0))
	r.Dialer = post
	h.hire(t, worker.Options{RetryDelays: worker.Schedule{patience}}, r)
	list := sparse(20)
	h.publish(t, "c", envelope.Batch{ID: "1", Recipients: envelope.To(list...)})
	l := h.ledger(t, "c", "1")
	for len(l.newest) < len(list) {
		l.until(subjects.Recorded)
	}
	for _, r := range list {
		want := subjects.Accepted
		if r == post.poison {
			want = subjects.Deferred
		}
		if o := l.newest[r]; o.status != want || o.attempt != 1 {
			t.Errorf("of %s is known %+v, want %s", r, o, want)
		}
	}
}
