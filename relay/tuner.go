package relay

import (
	"math/bits"
	"time"
)

// A tuner finds out with how many sessions at once a relay is served best, from
// 1 to connections. It adds one while that pays, takes one away to see whether
// it is missed, and gives way when the server says that it is too much.
//
// Like the robin it has no lock and no clock.
//
// What a number of sessions gives is its speed: that number by the time that
// their envelopes take, as a multiple of what envelopes of their size took
// first. A server that has room takes no longer over each when one session more
// sends, so that speed grows in proportion; one that has none, or thrashes,
// takes longer, and speed stays or falls. A session is worth having if it brings
// a third of its proportional share.
//
// It is off unless asked for, since it begins with one session. What
// BenchmarkAdaptive measured with 16 connections, in recipients a second, on two
// cores with a server in the same process:
//
//	a server that                       all 16   adaptive  sessions
//	has room for all                    25,788     25,980        16
//	  the same, in the first second     25,800     21,780
//	has room for 4                       7,734      6,964         4
//	takes n²/16 as long beyond 4         1,988      6,770         4
//	answers 451 4.7.0 beyond 4              18      3,365         4
//	smtp-sink, a process of its own    346,456    402,911         3
type tuner struct {
	most int // connections
	at   int // sessions at once now

	usual [32]float64 // seconds that an envelope took first, by the length of its number of recipients in bits
	skip  int         // envelopes that began before the last change
	n     int         // envelopes of this round
	sum   float64     // how long they took, in multiples of the usual
	ratio float64     // the mean of the round before

	from  int     // the number that at is being compared with; 0: none
	speed float64 // what that number gave, or at if nothing is compared
	slow  bool    // no session was too many yet: their number doubles
	up    bool    // the next trial is with more
	hold  int     // rounds until then
	pause int     // the last hold

	ceiling int       // the server refused more than that
	until   time.Time // when more may be tried
	rest    time.Duration
}

const (
	roundEnvelopes = 16 // at least, and a few for each session
	roundShare     = 4
	firstHold      = 2 // rounds
	longestHold    = 64
	worthwhile     = 0.3
	firstRest      = time.Minute
	longestRest    = time.Hour
)

func newTuner(most int) *tuner { return &tuner{most: most, at: 1, slow: true, up: true} }

// change sets another number of connections.
func (t *tuner) change(most int) {
	t.most = most
	if t.at > most {
		t.move(most)
		t.from = 0
	}
}

// sent says how long an envelope of so many recipients took while all sessions
// that there may be were sending.
func (t *tuner) sent(now time.Time, recipients int, took time.Duration) {
	if t.skip > 0 {
		t.skip--
		return
	}
	size := bits.Len(uint(recipients)) % len(t.usual)
	if t.usual[size] == 0 {
		ratio := t.ratio // an envelope of another size takes what it takes at this number
		if t.n > 0 {
			ratio = t.sum / float64(t.n)
		}
		if ratio == 0 {
			ratio = 1
		}
		t.usual[size] = max(took.Seconds(), 1e-9) / ratio
	}
	t.sum += took.Seconds() / t.usual[size]
	if t.n++; t.n < max(roundEnvelopes, roundShare*t.at) {
		return
	}
	t.ratio = max(t.sum/float64(t.n), 1e-9)
	t.n, t.sum = 0, 0
	t.judge(now, float64(t.at)/t.ratio)
}

// judge draws the conclusion of a round.
func (t *tuner) judge(now time.Time, speed float64) {
	if t.at > t.ceiling {
		t.ceiling, t.rest = 0, 0 // it takes more by now
	}
	if t.from == 0 {
		t.speed = speed
		if t.hold--; t.hold < 0 {
			t.try(now)
		}
		return
	}
	from, was := t.from, t.speed
	t.from = 0
	fewer, more := was, speed
	if t.at < from {
		fewer, more = speed, was
	}
	share := float64(max(t.at, from)-min(t.at, from)) / float64(min(t.at, from))
	if pays := more-fewer >= worthwhile*share*fewer; pays == (t.at > from) {
		// The trial was right: the next one the same way.
		t.speed, t.pause = speed, 0
		t.try(now)
		return
	}
	t.slow = false
	t.up = t.at < from // the other way next
	t.move(from)
	t.pause = min(max(firstHold, 2*t.pause), longestHold)
	t.hold = t.pause
}

// try begins a round with another number.
func (t *tuner) try(now time.Time) {
	next := t.at - 1
	if t.up {
		next = t.at + 1
		if t.slow {
			next = 2 * t.at
		}
		next = min(next, t.most)
		if now.Before(t.until) {
			next = min(next, t.ceiling)
		}
	}
	if next < 1 || t.up && next <= t.at {
		t.up, t.slow = !t.up, false
		t.pause = min(max(firstHold, 2*t.pause), longestHold)
		t.hold = t.pause
		return
	}
	t.from = t.at
	t.move(next)
}

func (t *tuner) move(to int) {
	t.skip, t.n, t.sum = max(t.at, to), 0, 0
	t.at = to
}

// throttled says that the server asked for less while so many sessions were
// sending.
func (t *tuner) throttled(now time.Time, sending int) {
	t.refused(now, min(t.at, sending)-1)
	t.move(max(1, min(t.at, sending/2)))
}

// refused says that the server takes no more sessions than that.
func (t *tuner) refused(now time.Time, most int) {
	most = max(most, 1)
	if most < t.ceiling {
		t.rest = 0 // it is not the limit that we know of
	}
	t.rest = min(max(firstRest, 2*t.rest), longestRest)
	t.ceiling, t.until = most, now.Add(t.rest)
	t.from, t.slow, t.up, t.hold = 0, false, true, 0
	if t.at > most {
		t.move(most)
	}
}
