package envelope

import "strings"

// DSN asks relays that offer it for delivery status notifications (RFC 3461).
// The zero value asks for none.
type DSN struct {
	EnvelopeID string // ENVID: comes back in notifications; printable ASCII, at most 100 octets as xtext
	Return     string // RET: FULL or HDRS
	Notify     string // NOTIFY: NEVER, or of SUCCESS, FAILURE, DELAY, with commas
}

// check returns a *[FieldError] about the first field that is wrong.
func (d *DSN) check() error {
	octets := 0
	for _, c := range []byte(d.EnvelopeID) {
		switch {
		case c < ' ' || c > '~':
			return &FieldError{"dsn_envid", "use printable ASCII"}
		case c == ' ' || c == '+' || c == '=':
			octets += len("+20") // as xtext
		default:
			octets++
		}
	}
	if octets > 100 {
		return &FieldError{"dsn_envid", "longer than the 100 octets that RFC 3461 allows"}
	}
	if d.Return != "" && d.Return != "FULL" && d.Return != "HDRS" {
		return &FieldError{"dsn_return", quoted(d.Return) + " is neither FULL nor HDRS"}
	}
	if d.Notify == "" || d.Notify == "NEVER" {
		return nil
	}
	seen := make(map[string]bool, 3)
	for word := range strings.SplitSeq(d.Notify, ",") {
		if word != "SUCCESS" && word != "FAILURE" && word != "DELAY" || seen[word] {
			return &FieldError{"dsn_notify", quoted(d.Notify) + " is neither NEVER nor a list of SUCCESS, FAILURE, DELAY with commas"}
		}
		seen[word] = true
	}
	return nil
}
