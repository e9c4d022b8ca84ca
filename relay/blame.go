package relay

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"bulkmail/relay/smtp"
)

// blame draws the conclusions from the error of something that began then:
// the relay is parked, or this was one more failed attempt to connect, or the
// session alone is dead. connecting says that the relay has done nothing for
// us on this connection yet; others is how many more sessions are open.
// Caller holds mu.
func (p *Pool) blame(m *member, now, began time.Time, err error, connecting bool, others int) *Error {
	cause := fail(m.name, err)
	if p.sessions.Err() != nil {
		return cause // we cut it off ourselves: the relay has no part in it
	}
	m.stats.lastError, m.stats.lastErrorTime = cause, now

	said, ok := errors.AsType[*smtp.Error](err)
	if !ok {
		said = &smtp.Error{}
	}
	h := &m.health
	news := false
	switch {
	case connecting && others > 0 && h.trouble == well:
		// The other sessions are fine: it has no room for one more.
		news = h.full(now, began, said.RetryAfter)
	case connecting:
		answered := said.Reply != nil && !said.Reply.Local
		news = h.attemptFailed(now, began, said.RetryAfter, answered, cause)
	case said.Unwell || said.Loud:
		news = h.park(now, began, said.RetryAfter, cause)
	}
	if news {
		p.logTrouble(m, cause, said)
	}
	return cause
}

// logTrouble has the keeper log what has just become of a relay. Caller holds
// mu.
func (p *Pool) logTrouble(m *member, cause *Error, said *smtp.Error) {
	level := slog.LevelWarn
	attrs := []slog.Attr{slog.String("relay", m.name), slog.Any("error", cause)}
	if said.Loud {
		level = slog.LevelError
		attrs = append(attrs, slog.String("change", advice(m, said)))
	}
	h := &m.health
	var text string
	switch h.trouble {
	case well:
		text = "relay takes no more sessions"
		attrs = append(attrs, slog.Time("until", h.dialAt), slog.Int("sessions", m.open))
	case unreachable:
		text = "cannot connect to relay"
		attrs = append(attrs, slog.Time("until", h.until), slog.Int("attempt", h.attempts), slog.Int("max_connection_attempts", h.maxAttempts))
	case parked:
		text = "relay is parked"
		attrs = append(attrs, slog.Time("until", h.until))
	case worthless:
		text = "relay is worthless"
		if h.forGood {
			level = slog.LevelError
			attrs = append(attrs, slog.String("until", "reset"))
		} else {
			attrs = append(attrs, slog.Time("until", h.until))
		}
	}
	p.later(func() { p.opts.Log.LogAttrs(context.Background(), level, text, attrs...) })
}

// logBack has the keeper log that a relay is well again. Caller holds mu.
func (p *Pool) logBack(m *member) {
	p.later(func() { p.opts.Log.Info("relay is back", "relay", m.name) })
}

// advice says what an operator may change.
func advice(m *member, said *smtp.Error) string {
	var change string
	switch said.Command {
	case "AUTH":
		change = "check user, password or password_file, and auth"
	case "STARTTLS":
		change = "check tls, tls_ca, tls_cert and tls_key"
	default:
		change = "check host, port, tls and auth"
	}
	if m.where != "" {
		change += " in " + m.where
	}
	return change
}
