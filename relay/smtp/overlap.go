package smtp

import (
	"slices"
	"sync"
	"time"
)

// lookAhead asks for the envelope that follows and, where that pays, puts its
// first group behind the end of this one's message: one round trip a
// transaction instead of two (RFC 2920, 3.1). Not over LMTP, where a reply too
// little to the end of the data would be made up for by those of the next.
func (s *Session) lookAhead(next func() *Envelope) {
	if next == nil || s.d.LMTP || !s.caps.Pipelining || s.d.TalkAttempts > 1 ||
		s.caps.MaxMessages > 0 && s.sent >= s.caps.MaxMessages {
		return
	}
	overlap := s.d.Overlap == OverlapOn && !s.d.learnt.isRefused()
	if s.d.Overlap == OverlapAuto {
		var ask bool
		if ask, overlap = s.d.learnt.choose(); !ask {
			return
		}
	} else if !overlap {
		return
	}
	e := next()
	if e == nil {
		return
	}
	s.waiting = true
	t := &s.ahead
	s.prepare(t, e)
	t.followed = true
	if !overlap || t.said == 0 {
		return
	}
	t.rset, t.begun, t.overlapped = false, true, true
	s.sent++
	s.out.buf = s.appendGroup(s.out.buf, t, true)
}

const (
	trialBlocks  = 6    // off, on, off, on, off, on
	trialSamples = 4    // of one session in one block
	trialKept    = 256  // samples of one mode that are looked at
	firstTerm    = 1024 // envelopes until the next trial
	longestTerm  = 64 * firstTerm
	stall        = 20 * time.Millisecond // delayed ACKs cost 40
)

// A learner finds out whether overlap pays with one server, for all sessions
// with it. It tries both ways in turn, keeps to the better one for a term and
// tries again. Its zero value begins with a trial.
type learner struct {
	mu       sync.Mutex
	refused  bool // the server does not follow: never again
	sessions int  // open now

	settled bool // on is the outcome of a trial, not a part of one
	on      bool
	outcome bool // of the trial before
	left    int  // envelopes until the next trial
	term    int

	block   int // of the trial
	ignored int // samples of this block that still belong to the mode before
	wanted  int // samples until the block is over
	samples [2][]time.Duration
}

// refuse: the server has lost its way behind an overlapped message.
func (l *learner) refuse() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refused = true
}

func (l *learner) isRefused() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.refused
}

// count keeps the number of open sessions.
func (l *learner) count(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sessions += n
}

// choose says what to do with the message about to be sent: ask whether
// another envelope waits, and if so overlap it.
func (l *learner) choose() (ask, overlap bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.refused {
		return false, false
	}
	if l.settled {
		if l.left--; l.left > 0 {
			return l.on, l.on
		}
		l.settled = false
		l.block = 0
		l.samples[0], l.samples[1] = l.samples[0][:0], l.samples[1][:0]
		l.begin()
	} else if l.wanted == 0 {
		l.begin()
	}
	return true, l.on
}

// begin starts a block of the trial. The caller holds mu.
func (l *learner) begin() {
	n := max(1, l.sessions)
	l.on = l.block%2 == 1
	l.wanted = trialSamples * n
	l.ignored = 0
	if n > 1 {
		l.ignored = n
	}
}

// sample takes the time between the ends of two messages of which the second
// was waiting when the first ended.
func (l *learner) sample(overlapped bool, took time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.settled || l.refused || l.wanted == 0 || overlapped != l.on {
		return
	}
	if l.ignored > 0 {
		l.ignored--
		return
	}
	mode := &l.samples[0]
	if overlapped {
		mode = &l.samples[1]
	}
	if len(*mode) < trialKept {
		*mode = append(*mode, took)
	}
	// Two stalls settle it: there is no point in sitting through more.
	if overlapped && took > stall && len(l.samples[0]) > 0 {
		if off := median(l.samples[0]); took > 3*off && len(*mode) > 1 && slices.Min((*mode)[len(*mode)-2:]) > 3*off {
			l.settle(false)
			return
		}
	}
	if l.wanted--; l.wanted > 0 {
		return
	}
	l.block++
	off, on := l.samples[0], l.samples[1]
	switch {
	case l.block%2 == 1:
		l.begin()
	case slices.Max(on) < slices.Min(off):
		l.settle(true) // no two samples contradict each other
	case slices.Min(on) > slices.Max(off):
		l.settle(false)
	case l.block < trialBlocks:
		l.begin()
	default:
		mid := median(off)
		l.settle(median(on) < mid-mid/20)
	}
}

// settle ends a trial. The caller holds mu.
func (l *learner) settle(on bool) {
	if l.term == 0 || l.outcome != on {
		l.term = firstTerm
	} else {
		l.term = min(2*l.term, longestTerm)
	}
	l.settled, l.on, l.outcome, l.left, l.wanted = true, on, on, l.term, 0
}

func median(d []time.Duration) time.Duration {
	if len(d) == 0 {
		return 0
	}
	s := slices.Clone(d)
	slices.Sort(s)
	return s[len(s)/2]
}
