package relay

import "time"

// Nothing that looked bad once is left alone for longer than this without a
// probe, unless configured so.
const longestParking = time.Hour

// trouble is what kind of it a relay is in.
type trouble uint8

const (
	well        trouble = iota
	unreachable         // fewer failed attempts to connect than max_connection_attempts
	parked              // it said itself that it is unwell
	worthless           // max_connection_attempts reached
)

// health is what a pool thinks of one relay. Once the time of a parking is
// over, one session at a time may probe the relay until an envelope succeeds.
//
// Of sessions that fail together only the first tells something new: a mishap
// that did not begin after the last one neither counts nor doubles.
type health struct {
	first, longest time.Duration // backoff of a relay that is unwell
	dial           time.Duration // the first backoff between attempts to connect
	maxAttempts    int           // max_connection_attempts; 0: never worthless
	worthlessFor   time.Duration // 0: for good

	trouble  trouble
	trial    bool // it was over one envelope that it said that it is unwell: others may try it before until
	until    time.Time
	forGood  bool
	cause    *Error
	last     time.Time     // of the last mishap
	dialing  bool          // it was a dial
	backoff  time.Duration // of the last parking
	attempts int           // failed in a row
	span     time.Duration // how long it was worthless last

	// A relay whose sessions are fine but that takes no more of them.
	dialAt      time.Time
	dialBackoff time.Duration
}

// blocked tells whether the relay must be left alone now. until is zero where
// somebody has to act.
func (h *health) blocked(now time.Time) (blocked bool, until time.Time) {
	if h.forGood {
		return true, time.Time{}
	}
	return now.Before(h.until), h.until
}

// park puts the relay aside for hint, or for the next backoff. It tells
// whether that is news. trial says that it may have been for the sake of one
// envelope: until a second one fares no better, the relay is kept from those
// that have met it alone.
func (h *health) park(now time.Time, what mishap, hint time.Duration, cause *Error, trial bool) bool {
	began := what.began
	if !began.After(h.last) {
		h.until = later(h.until, now.Add(min(hint, longestParking)))
		h.trial = h.trial && what.suspect
		return false
	}
	if !what.alone || h.backoff == 0 {
		h.backoff = min(max(h.first, 2*h.backoff), h.longest)
	}
	pause := h.backoff
	if hint > 0 {
		pause = min(hint, longestParking)
	}
	h.trial = trial && (h.trouble == well || h.trial && what.suspect)
	h.trouble, h.cause, h.last, h.dialing, h.until = parked, cause, now, false, now.Add(pause)
	return true
}

// Accounts are locked after a few wrong passwords.
const firstLoginBackoff = 5 * time.Minute

// loginRefused puts a relay that does not accept our login aside for minutes,
// doubling up to an hour.
func (h *health) loginRefused(now time.Time, what mishap, cause *Error) bool {
	if !what.began.After(h.last) {
		return false
	}
	h.attempts++
	h.backoff = min(max(firstLoginBackoff, 2*h.backoff), longestParking)
	h.trouble, h.trial, h.cause, h.last, h.dialing, h.until = parked, false, cause, now, what.dialing, now.Add(h.backoff)
	return true
}

// attemptFailed counts a failed attempt to connect. A server that answered is
// left alone for hint or as long as one that is unwell, one that did not is
// tried again sooner.
func (h *health) attemptFailed(now time.Time, what mishap, hint time.Duration, answered bool, cause *Error) bool {
	if !what.began.After(h.last) {
		return false
	}
	h.attempts++
	h.last, h.dialing, h.cause = now, what.dialing, cause
	if h.maxAttempts > 0 && h.attempts >= h.maxAttempts {
		h.cause = &Error{Relay: cause.Relay, MBS: "MBS001", Code: cause.Code, Enhanced: cause.Enhanced, Err: cause.Err}
		h.trouble, h.trial = worthless, false
		h.forGood = h.worthlessFor <= 0
		h.span = min(max(h.worthlessFor, 2*h.span), max(longestParking, h.worthlessFor))
		h.until = now.Add(h.span)
		return true
	}
	pause := min(h.dial<<min(h.attempts-1, 16), h.longest)
	if answered {
		h.backoff = min(max(h.first, 2*h.backoff), h.longest)
		pause = h.backoff
	}
	if hint > 0 {
		pause = min(hint, longestParking)
	}
	h.trouble, h.trial, h.until = unreachable, false, now.Add(pause)
	return true
}

// connected says that a dial that was begun then succeeded. If another one that
// was under way at the same time failed, the relay is not out of reach but has
// room for fewer sessions. It tells whether that is news.
func (h *health) connected(began time.Time) bool {
	if h.trouble != unreachable && h.trouble != worthless || !h.dialing || began.After(h.last) {
		return false
	}
	last := h.last
	h.reset()
	h.dialAt, h.dialBackoff = last.Add(h.first), h.first
	return true
}

// full says that the relay refused one more session while it serves others.
func (h *health) full(now, began time.Time, hint time.Duration) bool {
	if began.Before(h.dialAt) {
		return false
	}
	news := h.dialBackoff == 0
	h.dialBackoff = min(max(h.dial, 2*h.dialBackoff), h.longest)
	h.dialAt = now.Add(max(h.dialBackoff, min(hint, longestParking)))
	return news
}

// succeeded says that an envelope that was begun then got its verdicts. It
// tells whether the relay was in trouble and is well again.
func (h *health) succeeded(began time.Time) bool {
	h.dialBackoff = 0
	if h.trouble == well || !began.After(h.last) {
		return false
	}
	h.reset()
	return true
}

func (h *health) reset() {
	h.trouble, h.trial, h.forGood, h.until, h.cause = well, false, false, time.Time{}, nil
	h.backoff, h.attempts, h.span = 0, 0, 0
	h.dialAt, h.dialBackoff = time.Time{}, 0
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
