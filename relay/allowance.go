package relay

import (
	"time"

	"bulkmail/relay/caps"
)

// Unlimited is the grant of a relay without limits.
const Unlimited = caps.Unlimited

// Rate is so many messages in so much time; see [caps.ParseRate].
type Rate = caps.Rate

// An Allowance is how many more messages one relay may be granted: see package
// caps, whose [caps.Ledger] is the allowance of a pool that shares its relay with
// no other.
//
// Messages are taken when an envelope is cut and settled when its replies are
// in, so that a cap is never exceeded whatever becomes of the envelopes in
// flight. The pool's lock is held during each call: an Allowance does no I/O,
// and needs no lock unless it is shared.
type Allowance interface {
	// Left is how many messages may be granted now. Who asks has messages to
	// send, so that an Allowance that gets its leave elsewhere asks for more.
	Left(now time.Time) int
	// Reserve sets messages aside for the envelope that is about to be cut, until
	// Take says how many it holds. It tells how many it has: an Allowance that is
	// shared may have given back meanwhile what Left said.
	Reserve(now time.Time, messages int) int
	// Take takes messages for an envelope, at most what was reserved; the rest of
	// that is free again.
	Take(now time.Time, messages int)
	// Settle says that of the messages taken for an envelope so many count:
	// those that the relay accepted or may have accepted. The rest is given
	// back.
	Settle(now time.Time, taken, counted int)
	// Wait tells why Left is 0.
	Wait(now time.Time) caps.Wait
	// Reset sets the counters to zero. What is in flight stays reserved.
	Reset(now time.Time)
	// Remaining is what the caps leave now, for whoever wants to know.
	Remaining(now time.Time) int
	// Change sets other limits; what was counted stays.
	Change(caps.Limits)
}
