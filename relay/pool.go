package relay

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"bulkmail/relay/caps"
)

// Options are the settings of a [Pool]. The zero value has the defaults.
type Options struct {
	Idle         time.Duration // a session without work says QUIT after this; 30s
	Backoff      time.Duration // a relay that is unwell is left alone for this, doubling; 5s
	MaxBackoff   time.Duration // up to this; 5m
	DialBackoff  time.Duration // pause after a failed attempt to connect, doubling; 500ms
	DialPatience time.Duration // a dial that takes longer no longer counts as help on its way; 2s
	StallAfter   time.Duration // pauses of all relays shorter than this are not told to sources; 2s
	Log          *slog.Logger  // nil: discarded

	// Allowance, if not nil, makes the allowance of a relay with caps, for
	// pools that share their relays. Changed is to be called, without holding
	// anything that the allowance's methods need, when more may be granted than
	// was, or the wait is another. Nil, or where it returns nil: the pool's own.
	Allowance func(relay string, limits caps.Limits, changed func()) Allowance
}

func (o Options) withDefaults() Options {
	o.Idle = cmp.Or(o.Idle, 30*time.Second)
	o.Backoff = cmp.Or(o.Backoff, 5*time.Second)
	o.MaxBackoff = cmp.Or(o.MaxBackoff, 5*time.Minute)
	o.DialBackoff = cmp.Or(o.DialBackoff, 500*time.Millisecond)
	o.DialPatience = cmp.Or(o.DialPatience, 2*time.Second)
	o.StallAfter = cmp.Or(o.StallAfter, 2*time.Second)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// A Pool sends the envelopes of its sources over its relays.
//
// Each session is a goroutine of the pool that takes an envelope, sends it,
// settles it and takes the next. Sessions are opened when work waits and
// closed when they have been idle. What to hand to whom is decided in one
// place, dispatch, by whoever changed something: a source with new work, a
// session that is free, or the keeper when a relay may be used again.
type Pool struct {
	opts   Options
	kick   chan struct{} // for the keeper: something is to be told
	closed chan struct{} // closed when the pool is to end
	timer  *time.Timer   // for the keeper: wakeAt

	sessions   context.Context // of what is sent
	cut        context.CancelFunc
	dials      context.Context
	cancelDial context.CancelFunc
	wg         sync.WaitGroup

	// mu guards all that follows, and the fields of members, sessions and
	// entries. It is held briefly and never around I/O.
	mu      sync.Mutex
	closing bool
	robin   *Robin
	members []*member
	sources map[Source]*entry
	ready   queue // sources that may have something to cut
	open    map[*session]struct{}
	idle    int // idle sessions of all relays
	stall   stall
	wakeAt  time.Time
	told    []func() // for the keeper to call without the lock

	// The arguments of room and dialable: one call of the robin at a time.
	now      time.Time
	claimant *session // a session that is busy but would take an envelope to follow
	wanted   int      // the first relay in the robin's order that could take if it had a session; -1: none
	round    int      // of dispatch
	room     func(i int) int
	dialable func(i int) int
}

// member is a relay in a pool.
type member struct {
	index  int
	config Config
	name   string // never changes
	where  string
	dialer Dialer
	limit  int    // sessions at once
	tuner  *tuner // nil: always limit
	perCon int    // max_messages_per_connection
	health health

	generation int // counts changes that end the sessions

	free  []*session  // idle, the one used last at the end
	dials []time.Time // dials under way, by their beginning
	open  int         // sessions that are open
	dying int         // of these, those that are no longer usable
	busy  int         // sessions that are sending
	broke time.Time   // when a connection was lost last

	reached    bool      // a session has been opened, with the settings as they are
	passed     time.Time // when the last envelope began that got its verdicts
	refusals   int       // envelopes in a row that it refused as a whole
	refusal    *Error    // the last of them
	passedOver int       // the round of dispatch in which nothing that waits was for this relay

	stats stats
}

// NewPool makes a pool of relays in the order of the configuration. It must be
// closed.
func NewPool(relays []Relay, opts Options) *Pool {
	p := &Pool{
		opts:    opts.withDefaults(),
		kick:    make(chan struct{}, 1),
		closed:  make(chan struct{}),
		timer:   time.NewTimer(time.Hour),
		sources: map[Source]*entry{},
		open:    map[*session]struct{}{},
	}
	p.sessions, p.cut = context.WithCancel(context.Background())
	p.dials, p.cancelDial = context.WithCancel(p.sessions)
	p.room, p.dialable = p.roomOf, p.dialableOf

	p.mu.Lock() // an allowance may call back at once
	defer p.mu.Unlock()
	p.robin = &Robin{}
	for i, r := range relays {
		r.Config = r.Config.WithDefaults(len(relays))
		p.members = append(p.members, p.newMember(i, r))
		l := r.Config.Limits()
		p.robin.lanes = append(p.robin.lanes, newLane(l, p.allowance(r.Config.Name, l)))
	}
	p.wg.Go(p.keep)
	return p
}

func (p *Pool) newMember(index int, r Relay) *member {
	m := &member{name: r.Config.Name, health: health{first: p.opts.Backoff, longest: p.opts.MaxBackoff, dial: p.opts.DialBackoff}}
	m.configure(index, r.Config)
	m.dialer = r.Dialer
	return m
}

// configure sets all that follows from the configuration but the dialer.
func (m *member) configure(index int, c Config) {
	m.index, m.config, m.where = index, c, c.Where
	m.limit, m.perCon = c.Connections, c.MaxMessagesPerConnection
	switch {
	case !c.Adaptive:
		m.tuner = nil
	case m.tuner == nil:
		m.tuner = newTuner(m.limit)
	default:
		m.tuner.change(m.limit)
	}
	m.health.maxAttempts, m.health.worthlessFor = c.MaxConnectionAttempts, max(c.WorthlessFor, 0)
}

// atOnce is how many sessions may be sending. Caller holds mu.
func (m *member) atOnce() int {
	if m.tuner != nil {
		return m.tuner.at
	}
	return m.limit
}

// allowance is that of a relay. Caller holds mu.
func (p *Pool) allowance(name string, l Limits) Allowance {
	if p.opts.Allowance != nil && l.caps().Any() {
		if a := p.opts.Allowance(name, l.caps(), p.look); a != nil {
			return a
		}
	}
	return caps.New(l.caps(), caps.State{})
}

// Add makes s a source of envelopes. Adding it again does nothing.
func (p *Pool) Add(s Source) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closing || p.sources[s] != nil {
		return
	}
	e := &entry{source: s}
	p.sources[s] = e
	p.ready.push(e)
	p.dispatch(time.Now())
}

// Ready says that s has work again.
func (p *Pool) Ready(s Source) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e := p.sources[s]
	if e == nil {
		return
	}
	if !e.queued {
		p.ready.push(e)
	}
	p.dispatch(time.Now())
}

// look hands out what can be handed out now.
func (p *Pool) look() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dispatch(time.Now())
}

// Remove says that nothing more may be cut from s. Envelopes in flight are
// still settled. A Stalled that is on its way may still arrive.
func (p *Pool) Remove(s Source) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e := p.sources[s]; e != nil {
		e.removed = true
		delete(p.sources, s)
	}
}

// Close ends the pool: nothing more is cut, idle sessions say QUIT, busy ones
// finish their envelope. When ctx ends first, they are cut off, and the error
// says so. Every envelope has been settled when Close returns.
func (p *Pool) Close(ctx context.Context) error {
	p.mu.Lock()
	first := !p.closing
	p.closing = true
	p.mu.Unlock()
	if first {
		close(p.closed)
		p.cancelDial()
	}
	ended := make(chan struct{})
	go func() {
		p.wg.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		p.cut()
		p.tell()
		return nil
	case <-ctx.Done():
		p.cut()
		<-ended
		p.tell()
		return &Error{Err: fmt.Errorf("sessions were cut off while sending: %w", context.Cause(ctx))}
	}
}

// Abort cuts off the sessions that are sending envelopes of s, which are settled
// soon. Remove s first, that no more are cut from it. Whatever else these sessions
// were to send goes out again on others.
func (p *Pool) Abort(s Source) {
	p.mu.Lock()
	defer p.mu.Unlock()
	of := func(e *Envelope) bool { return e != nil && e.Source == s }
	for busy := range p.open {
		if of(busy.sending) || of(busy.promised) {
			busy.aborted = true
			busy.cut()
		}
	}
}

// Reset sets all counters of a relay to zero, as Mail::Bulkmail's reset does; a relay that is
// parked or worthless is given another chance. It tells whether there is a
// relay of that name.
func (p *Pool) Reset(name string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, m := range p.members {
		if m.name == name {
			now := time.Now()
			p.robin.Reset(now, i)
			m.health.reset()
			p.dispatch(now)
			return true
		}
	}
	return false
}

// keep is the keeper: it dispatches when a relay may be used again, and says
// to sources and to the log what must not be said under the lock.
func (p *Pool) keep() {
	defer p.timer.Stop()
	for {
		select {
		case <-p.closed:
			p.tell()
			return
		case <-p.kick:
		case <-p.timer.C:
			p.mu.Lock()
			p.wakeAt = time.Time{}
			p.dispatch(time.Now())
			p.mu.Unlock()
		}
		p.tell()
	}
}

func (p *Pool) tell() {
	p.mu.Lock()
	told := p.told
	p.told = nil
	p.mu.Unlock()
	for _, say := range told {
		say()
	}
}

// later has the keeper call f without the lock. Caller holds mu.
func (p *Pool) later(f func()) {
	p.told = append(p.told, f)
	select {
	case p.kick <- struct{}{}:
	default:
	}
}
