package relay

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"bulkmail/relay/smtp"
)

// moody is a relay that fails in every way it can, at random, and keeps count
// of what it took.
type moody struct {
	mu       sync.Mutex
	rng      *rand.Rand
	open     int
	mostOpen int
	taken    int         // messages accepted, also those nobody heard of
	times    []time.Time // of each
}

type moodySession struct {
	r        *moody
	dead     bool
	busy     sync.Mutex // a session is used by one goroutine at a time
	promised *smtp.Envelope
	messages int
}

func (r *moody) chance(percent int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.rng.IntN(100) < percent
}

func (r *moody) Dial(ctx context.Context) (Session, error) {
	if r.chance(10) {
		if r.chance(30) {
			return nil, errors.New("connection refused")
		}
		return nil, &smtp.Error{MBS: "MBS004", Unwell: true, Reply: &smtp.Reply{Code: 421}, RetryAfter: time.Millisecond}
	}
	if err := pause(ctx, time.Duration(rand.IntN(300))*time.Microsecond); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open++
	r.mostOpen = max(r.mostOpen, r.open)
	return &moodySession{r: r}, nil
}

func (s *moodySession) Send(ctx context.Context, e *smtp.Envelope, next func() *smtp.Envelope) error {
	if !s.busy.TryLock() {
		panic("two goroutines use one session")
	}
	defer s.busy.Unlock()
	e.Results = make([]smtp.Result, len(e.Recipients))
	if s.promised != nil && s.promised != e {
		panic("another envelope than the one promised to follow")
	}
	s.promised = nil
	if s.dead || ctx.Err() != nil {
		s.dead = true
		return &smtp.Error{MBS: "MBS009", Err: ctx.Err()}
	}
	if s.r.chance(50) {
		s.promised = next()
	}
	if err := pause(ctx, time.Duration(rand.IntN(200))*time.Microsecond); err != nil {
		s.dead = true
		return &smtp.Error{MBS: "MBS009", Err: err}
	}
	switch {
	case s.r.chance(3):
		s.dead = true
		return &smtp.Error{MBS: "MBS009"}
	case s.r.chance(2):
		s.dead = s.r.chance(50)
		return &smtp.Error{MBS: "MBS013", Unwell: true, RetryAfter: time.Millisecond}
	case s.r.chance(2):
		s.r.take(len(e.Recipients))
		answer(e, smtp.InDoubt)
		s.dead = true
		return &smtp.Error{MBS: "MBS014", Unwell: true, RetryAfter: time.Millisecond}
	}
	accepted := 0
	for i := range e.Results {
		status := smtp.Accepted
		switch rand.IntN(20) {
		case 0:
			status = smtp.Deferred
		case 1:
			status = smtp.Rejected
		case 2:
			status = smtp.NotAttempted
		default:
			accepted++
		}
		e.Results[i] = smtp.Result{Status: status, Reply: kind}
	}
	s.r.take(accepted)
	s.messages += len(e.Recipients)
	return nil
}

func (r *moody) take(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	r.taken += n
	for range n {
		r.times = append(r.times, now)
	}
}

func (s *moodySession) Usable() bool       { return !s.dead }
func (s *moodySession) MaxRecipients() int { return 0 }
func (s *moodySession) Close() error {
	s.r.mu.Lock()
	defer s.r.mu.Unlock()
	s.r.open--
	return nil
}

func TestWithRelaysThatFailAtRandomEveryoneIsSettledOnceAndCapsHold(t *testing.T) {
	t.Parallel()
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	const lists, recipients = 12, 2000
	var relays []Relay
	var all []*moody
	for i := range 6 {
		r := &moody{rng: rand.New(rand.NewPCG(uint64(seed), uint64(i)))} //nolint:gosec // not a secret
		all = append(all, r)
		c := Config{
			Name: fmt.Sprint("r", i), Connections: 1 + i%3, EnvelopeLimit: 20, MaxMessagesPerRobin: cmp.Or(50*i, None),
			MaxConnectionAttempts: 4, WorthlessFor: 5 * time.Millisecond,
		}
		switch i {
		case 1:
			c.MaxMessages = 1500
		case 2:
			c.MaxRate = Rate{Messages: 200, Per: 50 * time.Millisecond}
		case 3:
			c.MaxMessagesWhileAwake, c.SleepLength = 300, 5*time.Millisecond
		case 4:
			c.MaxMessagesPerConnection = 33
		}
		relays = append(relays, Relay{Config: c, Dialer: r})
	}
	p := NewPool(relays, Options{
		Idle: 2 * time.Millisecond, Backoff: time.Millisecond, MaxBackoff: 5 * time.Millisecond,
		DialBackoff: time.Millisecond, DialPatience: time.Millisecond, StallAfter: time.Nanosecond,
	})
	sources := make([]*list, lists)
	var wg sync.WaitGroup
	for i := range sources {
		sources[i] = newList(p, fmt.Sprint("l", i), recipients)
		wg.Go(func() {
			p.Add(sources[i])
			if i%3 == 0 { // come and go
				p.Remove(sources[i])
				_ = pause(t.Context(), time.Millisecond)
				p.Add(sources[i])
			}
			_ = p.Status()
			<-sources[i].finished
			p.Remove(sources[i])
		})
	}
	wg.Wait()
	closePool(t, p)
	total, counted := 0, 0
	for _, l := range sources {
		for who, n := range l.settled {
			if n != 1 {
				t.Errorf("%s was settled %d times", who, n)
			}
		}
		if len(l.settled) != recipients {
			t.Errorf("list %s: %d of %d settled", l.id, len(l.settled), recipients)
		}
		counted += l.status[smtp.Accepted] + l.status[smtp.InDoubt]
	}
	for i, r := range all {
		total += r.taken
		if r.mostOpen > relays[i].Config.Connections {
			t.Errorf("relay %d had %d sessions at once, connections %d", i, r.mostOpen, relays[i].Config.Connections)
		}
		if r.open != 0 {
			t.Errorf("relay %d has %d sessions open", i, r.open)
		}
	}
	if total != counted {
		t.Errorf("the relays took %d messages, the sources know of %d", total, counted)
	}
	if n := all[1].taken; n > 1500 {
		t.Errorf("%d messages, max_messages 1500", n)
	}
	times := all[2].times
	for i := 200; i < len(times); i++ {
		if d := times[i].Sub(times[i-200]); d < 50*time.Millisecond {
			t.Fatalf("201 messages in %v, max_rate 200/50ms", d)
		}
	}
	for _, s := range p.Status() {
		if s.Sessions != 0 || s.Busy != 0 || s.Dialing != 0 {
			t.Errorf("%+v after the end", s)
		}
	}
}

func TestAPoolThatIsClosedInTheMiddleLosesNobody(t *testing.T) {
	t.Parallel()
	for i := range 20 {
		var relays []Relay
		for j := range 3 {
			r := &moody{rng: rand.New(rand.NewPCG(uint64(i), uint64(j)))} //nolint:gosec // not a secret
			relays = append(relays, named(fmt.Sprint("r", j), r, connections(3)))
		}
		p := NewPool(relays, Options{Backoff: time.Millisecond, DialBackoff: time.Millisecond})
		lists := []*list{add(p, "x", 5000), add(p, "y", 5000)}
		_ = pause(t.Context(), time.Duration(i)*200*time.Microsecond)
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i%3)*100*time.Microsecond)
		_ = p.Close(ctx)
		cancel()
		for _, l := range lists {
			if n := len(l.settled) + len(l.queue); n != 5000 {
				t.Errorf("of 5000 in list %s %d are settled or back in the queue", l.id, n)
			}
		}
	}
}
