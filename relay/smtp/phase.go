package smtp

import "time"

// Phase is a part of a session that ends with a reply, or with a connection.
type Phase uint8

// The phases, in the order in which a session has them. [PhaseHello] comes twice
// where STARTTLS does, [PhaseEnvelope] and [PhaseMessage] once an envelope.
const (
	PhaseConnect  Phase = iota // to the connection
	PhaseGreeting              // then, to 220
	PhaseTLS                   // the handshake
	PhaseHello                 // EHLO to its reply
	PhaseAuth                  // AUTH to the last reply
	PhaseEnvelope              // MAIL, RCPT and DATA, to the reply that lets the message go or the last refusal
	PhaseMessage               // the message, to the last reply to its end
	phases
)

// Phases are all phases.
func Phases() []Phase {
	all := make([]Phase, phases)
	for p := range all {
		all[p] = Phase(p)
	}
	return all
}

// String is the phase in one word.
func (p Phase) String() string {
	switch p {
	case PhaseConnect:
		return "connect"
	case PhaseGreeting:
		return "greeting"
	case PhaseTLS:
		return "tls"
	case PhaseHello:
		return "hello"
	case PhaseAuth:
		return "auth"
	case PhaseEnvelope:
		return "envelope"
	case PhaseMessage:
		return "message"
	}
	return "?"
}

// clock is the time, where somebody wants to know how long things take.
func (d *Dialer) clock() time.Time {
	if d.Took == nil {
		return time.Time{}
	}
	return time.Now()
}

// took tells how long a phase took, unless it had no end.
func (d *Dialer) took(p Phase, began time.Time, err *Error) {
	if d.Took != nil && (err == nil || err.Reply != nil) {
		d.Took(p, time.Since(began))
	}
}
