// Package relay hands envelopes to relays: configured SMTP servers, each with
// its limits.
//
// The way of an envelope:
//
//  1. A [Source] (a batch in hand) is added to the [Pool].
//  2. The [Robin] says which relay is next and how many messages it may be
//     granted; Cut takes that many recipients off the source.
//  3. A session of that relay, pooled and reused, sends the envelope.
//  4. What the relay refused is looked into: whom does it blame, and could
//     another relay be asked?
//  5. Settle gives the envelope back to its source with a result for each
//     recipient. Those not attempted go out again at once, elsewhere if the
//     relay is unwell or would not have them.
//
// A relay is anything that can dial a [Session]: package smtp for SMTP and
// LMTP, [Dummy] for Mail::Bulkmail's DummyServer, and whatever a user of this
// package plugs in.
//
// Messages are counted as in Mail::Bulkmail: one recipient of one envelope is
// one message.
package relay

import (
	"context"
	"time"

	"bulkmail/relay/smtp"
)

// A Relay is a relay as configured and the dialer that reaches it.
type Relay struct {
	Config Config
	Dialer Dialer
}

// A Dialer makes sessions with one relay. It is called concurrently.
type Dialer interface {
	Dial(ctx context.Context) (Session, error)
}

// A Session sends envelopes to one relay, one after the other. See
// [smtp.Session], whose methods these are, for what each promises. An error of
// Dial or Send that is no [smtp.Error] is taken for a lost connection.
//
// A session whose server takes recipients of so many domains in one envelope and
// no more (RFC 9422 RCPTDOMAINMAX) has a method MaxDomains() int as well; 0: any.
// It is asked once.
type Session interface {
	Send(ctx context.Context, e *smtp.Envelope, next func() *smtp.Envelope) error
	Usable() bool
	MaxRecipients() int
	Close() error
}

// A Grant is leave to send one envelope over a relay. [Grant.For] says how much
// of it is for recipients that were cut before.
type Grant struct {
	Relay    string
	Messages int // at most so many recipients
	Domains  int // of at most so many domains; 0: of any

	DKIM         bool   // what leaves over this relay is signed
	DKIMUnsigned string // but for these header fields, with commas
	ReturnPath   bool   // the return path may be another one than the sender

	pool   *Pool
	member *member
	now    time.Time
	fresh  bool // for recipients without a Trail only
}

// An Envelope is an SMTP envelope on its way through the pool.
type Envelope struct {
	smtp.Envelope
	Source Source // set by the pool
	Domain string // that its recipients share; empty: they are of several
	Trail  *Trail // of all its recipients; set by the source

	after     *Trail    // of those whom the relay refused or stumbled over
	allowance Allowance // that its messages were taken from
}

// A Source is where envelopes are cut from: one batch in hand. It must be
// comparable (a pointer). Its methods are called by the pool's goroutines,
// also concurrently, and must not block.
//
// The pool's lock is held during Pending and Cut. They must not call the pool,
// and no lock that they take may be held where the pool is called.
type Source interface {
	// Pending is the least number of envelopes that wait to be cut where each
	// is of one domain; 0: none.
	Pending() int
	// Cut takes at most g.Messages recipients of at most g.Domains domains off
	// the source, and at most g.For(trail) of those with a [Trail]. It returns nil
	// when none waits that this relay may have. Where Pending is 0 then, the pool
	// asks no more until [Pool.Ready].
	Cut(g Grant) *Envelope
	// Settle takes an envelope back, once for each that was cut. Every
	// recipient has a result; err, if not nil, is the *Error of the session.
	// Accepted, rejected, deferred and in doubt are final for this attempt:
	// whether another relay could be asked has been considered. Rejected with
	// smtp.BlameEnvelope means that every relay that was asked refused the
	// envelope as a whole. The source puts what was not attempted back into its
	// queue, with its [Envelope.TrailOf], and then calls [Pool.Ready]; a reply
	// says why it was not.
	Settle(e *Envelope, relay string, err error)
	// Stalled says that no relay can take anything before until (zero: not
	// before somebody acts), and why. It is said once per such period to each
	// source with pending work. The source may wait or remove itself.
	Stalled(until time.Time, why error)
}
