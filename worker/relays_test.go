package worker_test

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"net"
	"strconv"
	"sync"
	"testing"
	"time"

	"bulkmail/envelope"
	"bulkmail/relay"
	"bulkmail/relay/sink"
	"bulkmail/relay/smtp"
)

// A postOffice is a recording sink: it knows how often each recipient was
// accepted.
type postOffice struct {
	*sink.Server
	mu       sync.Mutex
	accepted map[string]int
	sizes    map[int64]int // messages by size
}

func openSink(t testing.TB, o sink.Options, rules ...string) *postOffice {
	t.Helper()
	p := &postOffice{accepted: make(map[string]int), sizes: make(map[int64]int)}
	o.Rules = parseRules(t, rules...)
	first := o.Recorder
	o.Recorder = func(tx sink.Transaction) {
		if first != nil {
			first(tx)
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		p.sizes[tx.Size]++
		for _, r := range tx.Recipients {
			p.accepted[r]++
		}
	}
	var err error
	if p.Server, err = sink.Start(o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := p.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return p
}

func parseRules(t testing.TB, rules ...string) []sink.Rule {
	t.Helper()
	parsed, err := sink.ParseRules(rules...)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

// seen returns how often each recipient was accepted.
func (p *postOffice) seen() map[string]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.accepted)
}

// relay is the sink as a relay of a worker.
func (p *postOffice) relay(t testing.TB, change ...func(*relay.Config)) relay.Relay {
	t.Helper()
	return smtpRelay(t, "sink", p.Addr(), change...)
}

func smtpRelay(t testing.TB, name, addr string, change ...func(*relay.Config)) relay.Relay {
	t.Helper()
	host, portText, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(portText)
	if err != nil {
		t.Fatal(err)
	}
	c := relay.Config{
		Name: name, Kind: relay.KindSMTP, Host: host, Port: port, Domain: "worker.test",
		Tries: 1, MaxConnectionAttempts: 5, WorthlessFor: time.Minute, EnvelopeLimit: 100, EnvelopeDomains: 1,
		TalkAttempts: 1, Connections: 4, TLS: relay.TLSNone, Overlap: "auto",
	}
	for _, f := range change {
		f(&c)
	}
	relays, err := relay.FromConfig([]relay.Config{c}, relay.Outlets{})
	if err != nil {
		t.Fatal(err)
	}
	return relays[0]
}

// A memory is a relay without a wire. It accepts everybody unless told
// otherwise, and keeps count.
type memory struct {
	// reply, if not nil, answers one recipient; nil: accepted.
	reply func(recipient string) *smtp.Reply
	// gate, if not nil, is received from before an envelope is answered.
	gate chan struct{}

	mu       sync.Mutex
	accepted map[string]int
	begun    map[string]int
	wire     map[string]int // messages by content
	arrived  chan []string  // recipients of an envelope that has begun; nil: nobody waits
}

func newMemory() *memory {
	return &memory{accepted: make(map[string]int), begun: make(map[string]int), wire: make(map[string]int)}
}

func (m *memory) relay(change ...func(*relay.Config)) relay.Relay {
	c := relay.Config{Name: "memory", Connections: 4, EnvelopeLimit: 100, EnvelopeDomains: 1, MaxConnectionAttempts: 5, WorthlessFor: time.Minute}
	for _, f := range change {
		f(&c)
	}
	return relay.Relay{Config: c, Dialer: m}
}

func (m *memory) Dial(context.Context) (relay.Session, error) { return &memorySession{m: m}, nil }

func (m *memory) seen() map[string]int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.accepted)
}

// begunNow is the recipients of all envelopes that have begun so far.
func (m *memory) begunNow() map[string]int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.begun)
}

type memorySession struct {
	m    *memory
	dead bool
}

func (s *memorySession) Usable() bool       { return !s.dead }
func (s *memorySession) MaxRecipients() int { return 0 }
func (s *memorySession) Close() error       { return nil }

func (s *memorySession) Send(ctx context.Context, e *smtp.Envelope, _ func() *smtp.Envelope) error {
	s.m.mu.Lock()
	for _, r := range mailboxes(e.Recipients) {
		s.m.begun[r]++
	}
	s.m.mu.Unlock()
	if s.m.arrived != nil {
		s.m.arrived <- mailboxes(e.Recipients)
	}
	if s.m.gate != nil {
		select {
		case <-s.m.gate:
		case <-ctx.Done():
			s.dead = true
			return &smtp.Error{MBS: "MBS009", Err: ctx.Err()}
		}
	}
	message, err := e.Message.Open(ctx)
	if err != nil {
		s.dead = true
		return &smtp.Error{MBS: "MBS009", Err: err}
	}
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	s.m.wire[string(message.Wire())]++
	for i, r := range mailboxes(e.Recipients) {
		said := &smtp.Reply{Code: 250, Enhanced: "2.0.0", Text: "ok", Command: "END"}
		if s.m.reply != nil {
			said = cmp.Or(s.m.reply(r), said)
		}
		status := smtp.Accepted
		switch {
		case said.Code >= 500:
			status = smtp.Rejected
		case said.Code >= 400:
			status = smtp.Deferred
		default:
			s.m.accepted[r]++
		}
		e.Results[i] = smtp.Result{Status: status, Reply: said}
	}
	return nil
}

// away is a relay that nobody can connect to.
type away struct{}

var errAway = errors.New("connection refused")

func (away) Dial(context.Context) (relay.Session, error) {
	return nil, &smtp.Error{MBS: "MBS003", Unwell: true, Err: errAway}
}

func mailboxes(recipients []envelope.Recipient) []string {
	list := make([]string, len(recipients))
	for i, r := range recipients {
		list[i] = r.Mailbox
	}
	return list
}
