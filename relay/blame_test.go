package relay

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"bulkmail/envelope"
	"bulkmail/relay/smtp"
)

// patch is a source that keeps what its recipients have been through, as a batch
// in a worker does.
type patch struct {
	pool *Pool
	id   string

	mu       sync.Mutex
	waiting  []span
	results  map[string]smtp.Result
	by       map[string]string
	left     int
	finished chan struct{}
	stalls   []error
}

// span is recipients of one Trail.
type span struct {
	to    []string
	trail *Trail
}

func newPatch(p *Pool, id string, n int) *patch {
	s := &patch{pool: p, id: id, left: n, results: map[string]smtp.Result{}, by: map[string]string{}, finished: make(chan struct{})}
	var to []string
	for i := range n {
		to = append(to, fmt.Sprintf("%s-%d@example.net", id, i))
	}
	s.waiting = []span{{to: to}}
	return s
}

func addPatch(p *Pool, id string, n int) *patch {
	s := newPatch(p, id, n)
	p.Add(s)
	return s
}

func (s *patch) Pending() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, w := range s.waiting {
		n += (len(w.to) + 99) / 100
	}
	return n
}

func (s *patch) Cut(g Grant) *Envelope {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.waiting {
		w := &s.waiting[i]
		n := min(g.For(w.trail), len(w.to))
		if n == 0 {
			continue
		}
		e := &Envelope{Envelope: smtp.Envelope{From: "news@example.com", Recipients: envelope.To(w.to[:n:n]...)}, Domain: "example.net", Trail: w.trail}
		if w.to = w.to[n:]; len(w.to) == 0 {
			s.waiting = slices.Delete(s.waiting, i, i+1)
		}
		return e
	}
	return nil
}

func (s *patch) Settle(e *Envelope, relay string, _ error) {
	s.mu.Lock()
	again := false
	for i := range e.Recipients {
		to, r := e.Recipients[i].Mailbox, e.Results[i]
		if r.Status != smtp.NotAttempted {
			if _, twice := s.results[to]; twice {
				panic(to + " has two verdicts")
			}
			s.results[to], s.by[to] = r, relay
			s.left--
			continue
		}
		again = true
		trail := e.TrailOf(i)
		at := slices.IndexFunc(s.waiting, func(w span) bool { return w.trail == trail })
		if at < 0 {
			s.waiting, at = slices.Insert(s.waiting, 0, span{trail: trail}), 0
		}
		s.waiting[at].to = append(s.waiting[at].to, to)
	}
	over := s.left == 0
	s.mu.Unlock()
	if again {
		s.pool.Ready(s)
	}
	if over {
		close(s.finished)
	}
}

func (s *patch) Stalled(_ time.Time, why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stalls = append(s.stalls, why)
}

// told is why nothing could be taken, each time.
func (s *patch) told() []error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.stalls)
}

// accepted counts the accepted by relay.
func (s *patch) accepted() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := map[string]int{}
	for to, r := range s.results {
		if r.Status == smtp.Accepted {
			n[s.by[to]]++
		}
	}
	return n
}

// others are the results that are not accepted.
func (s *patch) others() map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := map[string]string{}
	for to, r := range s.results {
		if r.Status != smtp.Accepted {
			n[to] = fmt.Sprintf("%d %d", r.Status, r.Reply.Code)
		}
	}
	return n
}

func said(command string, code int, enhanced, text string) *smtp.Reply {
	return &smtp.Reply{Code: code, Enhanced: enhanced, Text: text, Command: command}
}

// has tells whether a recipient is in an envelope.
func has(e *smtp.Envelope, mailbox string) bool {
	return slices.ContainsFunc(e.Recipients, func(r envelope.Recipient) bool { return r.Mailbox == mailbox })
}

// poisoned accepts everybody, unless the envelope has that recipient: then it
// does what the reply says.
func poisoned(poison string, reply *smtp.Reply, named bool) func(int, *smtp.Envelope) error {
	return func(_ int, e *smtp.Envelope) error {
		if !has(e, poison) {
			answer(e, smtp.Accepted)
			return nil
		}
		err := &smtp.Error{MBS: "MBS009", Command: reply.Command, Reply: reply, Unwell: true}
		if named {
			err.To = poison
		}
		return err
	}
}

var stumbles = map[string]struct {
	reply *smtp.Reply
	named bool
}{
	"421 at RCPT":          {said("RCPT", 421, "4.3.0", "try again later"), true},
	"421 at the dot":       {said("END", 421, "4.3.2", "service not available"), false},
	"452 4.3.1 at the dot": {said("END", 452, "4.3.1", "insufficient system storage"), false},
	"auth at RCPT":         {said("RCPT", 550, "5.7.1", "RESOLVER.RST.AuthRequired; authentication required"), true},
}

func TestOneRecipientOverWhichARelayStumblesIsDeferredAloneAndTheOthersGoOn(t *testing.T) {
	t.Parallel()
	for name, c := range stumbles {
		for _, relays := range []int{1, 2} {
			t.Run(fmt.Sprintf("%s, %d relays", name, relays), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					// By how much the poison makes it slower.
					took := map[string]time.Duration{}
					for _, poison := range []string{"nobody@example.net", "x-777@example.net"} {
						var rs []Relay
						for i := range relays {
							rs = append(rs, named(fmt.Sprint("r", i), &recorder{latency: 10 * time.Millisecond, reply: poisoned(poison, c.reply, c.named)},
								connections(4), perRobin(500)))
						}
						p := NewPool(rs, Options{})
						began := time.Now()
						s := addPatch(p, "x", 9000)
						<-s.finished
						took[poison] = time.Since(began)
						others := s.others()
						if want := fmt.Sprintf("%d %d", smtp.Deferred, c.reply.Code); poison != "nobody@example.net" && (len(others) != 1 || others[poison] != want) {
							t.Errorf("%v, want one %s", others, want)
						}
						for _, st := range p.Status() {
							if st.State != Awake {
								t.Errorf("%+v", st)
							}
						}
						closePool(t, p)
					}
					if without, with := took["nobody@example.net"], took["x-777@example.net"]; with > 2*without {
						t.Errorf("%v with the poison, %v without", with, without)
					}
				})
			})
		}
	}
}

func TestARecipientAloneOverWhichTheOnlyRelayStumblesIsDeferredInTheEnd(t *testing.T) {
	t.Parallel()
	for name, c := range stumbles {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				r := &recorder{reply: poisoned("x-0@example.net", c.reply, c.named)}
				p := NewPool([]Relay{named("a", r)}, Options{})
				began := time.Now()
				s := addPatch(p, "x", 1)
				<-s.finished
				if took := time.Since(began); len(s.others()) != 1 || took > 20*time.Second {
					t.Errorf("%v after %v", s.others(), took)
				}
				closePool(t, p)
			})
		})
	}
}

func TestARelayThatStumblesOverEverybodyIsParkedAndNobodyIsDeferred(t *testing.T) {
	t.Parallel()
	for name, c := range stumbles {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				ill := time.Now().Add(10 * time.Minute)
				r := &recorder{reply: func(_ int, e *smtp.Envelope) error {
					if time.Now().After(ill) {
						answer(e, smtp.Accepted)
						return nil
					}
					err := &smtp.Error{MBS: "MBS009", Command: c.reply.Command, Reply: c.reply, Unwell: true}
					if c.named {
						err.To = e.Recipients[0].Mailbox
					}
					return err
				}}
				p := NewPool([]Relay{named("a", r, connections(2))}, Options{})
				s := addPatch(p, "x", 3000)
				time.Sleep(58 * time.Second)
				if st := p.Status()[0]; st.State != Parked || st.Until.IsZero() {
					t.Errorf("%+v", st)
				}
				<-s.finished
				if len(s.others()) > 0 || len(s.told()) == 0 {
					t.Errorf("%v, %d stalls", s.others(), len(s.told()))
				}
				if n := len(r.envelopes()); n > 3000/100+60 {
					t.Errorf("%d envelopes", n)
				}
				closePool(t, p)
			})
		})
	}
}

// refusing answers every envelope with one reply for all.
func refusing(status smtp.Status, blame smtp.Blame, reply *smtp.Reply) func(int, *smtp.Envelope) error {
	return func(_ int, e *smtp.Envelope) error {
		for i := range e.Results {
			e.Results[i] = smtp.Result{Status: status, Blame: blame, Reply: reply}
		}
		return nil
	}
}

var wrongs = map[string]struct {
	status smtp.Status
	blame  smtp.Blame
	reply  *smtp.Reply
}{
	"relaying denied":     {smtp.Rejected, smtp.BlameRelay, said("RCPT", 554, "5.7.1", "Relay access denied")},
	"blocked":             {smtp.Rejected, smtp.BlameRelay, said("RCPT", 554, "5.7.1", "Client host blocked using dnsbl.test")},
	"cannot carry":        {smtp.Rejected, smtp.BlameRelay, &smtp.Reply{Code: 554, Enhanced: "5.6.3", Command: "MAIL", Local: true}},
	"sender refused":      {smtp.Rejected, smtp.BlameEnvelope, said("MAIL", 550, "5.1.8", "bad sender")},
	"sender not verified": {smtp.Rejected, smtp.BlameEnvelope, said("END", 554, "", "Email address is not verified")},
	"MAIL deferred":       {smtp.Deferred, smtp.BlameEnvelope, said("MAIL", 451, "4.7.1", "not now")},
}

func TestWhatOneRelayRefusesForItsOwnReasonsIsAskedOfAnother(t *testing.T) {
	t.Parallel()
	for name, c := range wrongs {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				wrong := &recorder{latency: time.Millisecond, reply: refusing(c.status, c.blame, c.reply)}
				right := &recorder{latency: time.Millisecond}
				p := NewPool([]Relay{named("wrong", wrong, perRobin(500), connections(4)), named("right", right, perRobin(500), connections(4))}, Options{})
				began := time.Now()
				s := addPatch(p, "x", 4000)
				<-s.finished
				if n := s.accepted(); n["right"] != 4000 || time.Since(began) > 2*time.Second {
					t.Errorf("accepted by %v, others %v, after %v", n, s.others(), time.Since(began))
				}
				if st := p.Status()[0]; st.State != Parked {
					t.Errorf("the wrong one is %+v", st)
				}
				if n := len(wrong.envelopes()); n > 20 {
					t.Errorf("the wrong one was given %d envelopes", n)
				}
				closePool(t, p)
			})
		})
	}
}

func TestARelayThatWillNotRelayWaitsWhereThereIsNoOther(t *testing.T) {
	t.Parallel()
	for name, c := range wrongs {
		if c.blame != smtp.BlameRelay {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				mended := time.Now().Add(5 * time.Minute)
				r := &recorder{reply: func(n int, e *smtp.Envelope) error {
					if time.Now().After(mended) {
						answer(e, smtp.Accepted)
						return nil
					}
					return refusing(c.status, c.blame, c.reply)(n, e)
				}}
				var log logRecorder
				p := NewPool([]Relay{named("a", r, connections(2))}, Options{Log: log.logger()})
				s := addPatch(p, "x", 1000)
				time.Sleep(time.Minute)
				if st := p.Status()[0]; st.State != Parked || st.LastError == nil || st.LastError.Err.Error() == "" {
					t.Errorf("%+v", st)
				}
				if len(log.lines("relay is parked")) == 0 || len(log.lines("level=ERROR")) == 0 {
					t.Error("nothing in the log")
				}
				if len(s.told()) == 0 || !strings.Contains(s.told()[0].Error(), c.reply.Enhanced) {
					t.Errorf("the source was told %v", s.told())
				}
				<-s.finished
				if len(s.others()) > 0 {
					t.Errorf("%v", s.others())
				}
				closePool(t, p)
			})
		})
	}
}

func TestASenderThatEveryRelayRefusesIsAVerdictOnTheEnvelopeAsAWhole(t *testing.T) {
	t.Parallel()
	for name, c := range wrongs {
		if c.blame != smtp.BlameEnvelope {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				r := refusing(c.status, c.blame, c.reply)
				a, b := &recorder{reply: r}, &recorder{reply: r}
				p := NewPool([]Relay{named("a", a, perRobin(100)), named("b", b, perRobin(100))}, Options{})
				s := addPatch(p, "x", 400)
				<-s.finished
				for to, got := range s.results {
					if got.Status != c.status || got.Blame != smtp.BlameEnvelope {
						t.Errorf("%s: %+v", to, got)
					}
				}
				if n := len(a.envelopes()) + len(b.envelopes()); n != 8 {
					t.Errorf("%d envelopes, want 4 for each relay", n)
				}
				for _, st := range p.Status() {
					if st.State != Awake {
						t.Errorf("%+v", st)
					}
				}
				closePool(t, p)
			})
		})
	}
}

// A relay that carries some domains only is no worse for that.
func TestARelayThatPassesOthersIsNotParkedForWhatItWillNotRelay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		denied := said("RCPT", 554, "5.7.1", "Relay access denied")
		r := &recorder{latency: time.Millisecond, reply: func(_ int, e *smtp.Envelope) error {
			answer(e, smtp.Accepted)
			for i, to := range e.Recipients {
				if strings.HasPrefix(to.Mailbox, "x-7") {
					e.Results[i] = smtp.Result{Status: smtp.Rejected, Blame: smtp.BlameRelay, Reply: denied}
				}
			}
			return nil
		}}
		p := NewPool([]Relay{named("a", r)}, Options{})
		s := addPatch(p, "x", 1000)
		<-s.finished
		for to, got := range s.others() {
			if got != fmt.Sprintf("%d 554", smtp.Deferred) || !strings.HasPrefix(to, "x-7") {
				t.Errorf("%s: %s", to, got)
			}
		}
		if st := p.Status()[0]; len(s.others()) != 111 || st.State != Awake {
			t.Errorf("%d deferred, the relay is %+v", len(s.others()), st)
		}
		closePool(t, p)
	})
}

// What breaks connections again and again is deferred, and its neighbours are not.
func TestARecipientThatBreaksConnectionsIsDeferred(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{latency: time.Millisecond, reply: func(_ int, e *smtp.Envelope) error {
			if has(e, "x-7@example.net") {
				return &smtp.Error{MBS: "MBS009", Command: "RCPT", Err: errors.New("closed")}
			}
			answer(e, smtp.Accepted)
			return nil
		}}
		p := NewPool([]Relay{named("a", r)}, Options{})
		s := addPatch(p, "x", 1000)
		<-s.finished
		if others := s.others(); others["x-7@example.net"] == "" || len(others) > 10 {
			t.Errorf("%v", others)
		}
		closePool(t, p)
	})
}
