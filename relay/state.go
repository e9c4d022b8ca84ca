package relay

import (
	"fmt"
	"time"

	"bulkmail/relay/caps"
)

// A State is whether a relay can take messages, and if not, why not.
type State string

// The states of a relay.
const (
	Untried   State = "untried"   // nobody has connected to it yet
	Awake     State = "awake"     // it can take messages as far as caps and health go
	Asleep    State = "asleep"    // max_messages_while_awake reached
	Paced     State = "paced"     // max_rate reached, or max_messages_spread says that no more are due yet
	Exhausted State = "exhausted" // max_messages reached
	Parked    State = "parked"    // it is unwell, or does not let us connect
	Worthless State = "worthless" // max_connection_attempts reached
)

// States are all states.
func States() []State { return []State{Untried, Awake, Asleep, Paced, Exhausted, Parked, Worthless} }

// Status is what a pool knows about one of its relays.
type Status struct {
	Relay string
	Addr  string      // host:port; empty: no server is connected to
	Caps  caps.Limits // as configured
	State State
	Until time.Time // of a State other than Awake; zero: not before a reset, or until an envelope in flight is settled

	AtOnce   int // sessions that may be sending: connections, or what adaptive found
	Sessions int // open
	Busy     int // of these sending
	Dialing  int

	Messages      int64     // accepted, counted as recipients
	Envelopes     int64     // with at least one recipient accepted
	Refused       int64     // envelopes with verdicts, all of them refusals
	Failed        int64     // envelopes without a verdict on anybody: the relay, or the session, was unwell
	Errors        int64     // of sessions, and of attempts to have one
	LastMessage   time.Time // Mail::Bulkmail's time_of_last_message
	LastError     *Error    // nil: none so far
	LastErrorTime time.Time
	Left          int // what the caps leave now; [Unlimited] without caps
}

// stats is what is counted for Status.
type stats struct {
	messages, envelopes     int64
	refused, failed, errors int64
	lastMessage             time.Time
	lastError               *Error
	lastErrorTime           time.Time
}

// count counts what became of an envelope. Caller holds mu.
func (s *stats) count(t tally, now time.Time) {
	switch {
	case t.accepted > 0:
		s.messages += int64(t.accepted)
		s.envelopes++
		s.lastMessage = now
	case t.verdicts > 0:
		s.refused++
	default:
		s.failed++
	}
}

// Status tells the state of each relay, in the order of the configuration.
func (p *Pool) Status() []Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	all := make([]Status, len(p.members))
	for i, m := range p.members {
		st := p.stateOf(now, i, m)
		all[i] = Status{
			Relay:         m.name,
			Addr:          m.addr(),
			Caps:          m.config.Caps(),
			State:         st.State,
			Until:         st.until,
			AtOnce:        m.atOnce(),
			Sessions:      m.open,
			Busy:          m.busy,
			Dialing:       len(m.dials),
			Messages:      m.stats.messages,
			Envelopes:     m.stats.envelopes,
			Refused:       m.stats.refused,
			Failed:        m.stats.failed,
			Errors:        m.stats.errors,
			LastMessage:   m.stats.lastMessage,
			LastError:     m.stats.lastError,
			LastErrorTime: m.stats.lastErrorTime,
			Left:          p.robin.Remaining(now, i),
		}
	}
	return all
}

// addr is where the server of a relay is. Caller holds mu.
func (m *member) addr() string {
	if m.config.Host == "" {
		return ""
	}
	return m.config.Addr()
}

// standing is a State with its reason.
type standing struct {
	State
	until time.Time
	limit caps.Limit
	cause *Error
}

func (s standing) String() string {
	text := string(s.State)
	if s.limit != caps.NoLimit {
		text += " (" + s.limit.String() + ")"
	}
	if !s.until.IsZero() {
		text += " until " + s.until.UTC().Format("15:04:05Z")
	}
	if s.cause != nil {
		text += fmt.Sprintf(" (%v)", s.cause.Err)
	}
	return text
}

// stateOf is the state of relay i. Where health and a cap both keep it, the
// one that lasts longer is told. Caller holds mu.
func (p *Pool) stateOf(now time.Time, i int, m *member) standing {
	s := standing{State: Awake}
	blocked, until := m.health.blocked(now)
	if blocked {
		s = standing{State: Parked, until: until, cause: m.health.cause}
		if m.health.trouble == worthless {
			s.State = Worthless
		}
		if until.IsZero() {
			return s
		}
	}
	if s.State == Awake && !m.reached {
		s = p.unreached(now, m)
	}
	w := p.robin.Wait(now, i)
	if w.Limit == caps.NoLimit || w.Limit == caps.LimitLease || blocked && !w.Never && !w.Until.After(s.until) {
		return s
	}
	s = standing{until: w.Until, limit: w.Limit}
	switch w.Limit {
	case caps.LimitWhileAwake:
		s.State = Asleep
	case caps.LimitRate, caps.LimitSpread:
		s.State = Paced
	default:
		s.State = Exhausted
	}
	return s
}

// unreached is the state of a relay that may be tried, and with which there was no
// session yet. Where one was tried in vain, that is all that is known of it, also
// until it is tried again. Caller holds mu.
func (p *Pool) unreached(now time.Time, m *member) standing {
	if len(m.dials) > 0 {
		if since := m.dials[0]; now.Sub(since) >= p.opts.DialPatience {
			why := fmt.Errorf("connecting since %s, no answer yet", since.UTC().Format("15:04:05Z"))
			return standing{State: Parked, cause: &Error{Relay: m.name, Err: why}}
		}
	}
	if m.health.trouble == well {
		return standing{State: Untried}
	}
	return standing{State: Parked, cause: m.health.cause}
}
