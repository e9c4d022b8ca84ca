package relay

import (
	"context"
	"log/slog"
	"time"

	"bulkmail/relay/smtp"
)

// a mishap is an error of a dial or of an envelope.
type mishap struct {
	began     time.Time
	dialing   bool
	fruitless bool      // this connection gave nobody a verdict, and it is a fresh one
	stale     bool      // the session had been idle
	opened    time.Time // when the session was; zero: it was not
	others    int       // more sessions that are open and not known to be dead
	again     bool      // the session was known to be dead
	suspect   bool      // a relay has stumbled over this envelope before
	alone     bool      // and it is one recipient, who will be deferred soon
	cleared   bool      // and this one has passed others since: it is the envelope
}

// blame draws the conclusions: the relay is parked, or this was one more
// failed attempt to connect, or the session alone is dead. Caller holds mu.
//
//nolint:cyclop // one table of what can go wrong, whose order matters
func (p *Pool) blame(m *member, now time.Time, what mishap, err error) *Error {
	cause, said := fail(m.name, err, what.dialing)
	if !what.dialing && said.Reply == nil {
		cause.Common = what.opened.Before(m.broke)
		m.broke = now
	}
	if what.again || p.sessions.Err() != nil {
		return cause // nothing new, or we cut it off ourselves
	}
	m.stats.lastError, m.stats.lastErrorTime = cause, now
	m.stats.errors++

	h := &m.health
	news := false
	switch {
	case what.cleared:
	case what.stale && said.Reply == nil && !said.Loud && said.MBS != "MBS014":
		// Servers close sessions that have been idle: these too, then.
		p.hangUpIdle(m, now)
	case !what.dialing && (said.Unwell || said.Loud):
		others := said.RetryAfter == 0 && said.Reply != nil && !said.Reply.Throttles()
		if news = h.park(now, what, said.RetryAfter, cause, others); news && m.tuner != nil && cause.Code/100 == 4 {
			m.tuner.throttled(now, m.busy)
		}
	case !what.dialing && (!what.fruitless || said.MBS == ""):
		// The session alone is dead, or the envelope was called back.
	case said.Command == "AUTH" && said.Reply != nil && said.Reply.Code >= 500:
		news = h.loginRefused(now, what, cause)
	case what.others > 0 && h.trouble == well:
		// The other sessions are fine: it has no room for one more.
		if news = h.full(now, what.began, said.RetryAfter); m.tuner != nil {
			m.tuner.refused(now, what.others)
		}
	default:
		answered := said.Reply != nil && !said.Reply.Local
		news = h.attemptFailed(now, what, said.RetryAfter, answered, cause)
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
	trouble := h.trouble
	switch {
	case trouble == well:
		attrs = append(attrs, slog.Time("until", h.dialAt), slog.Int("sessions", m.open))
	case h.forGood:
		level = slog.LevelError
		attrs = append(attrs, slog.String("until", "reset"))
	default:
		attrs = append(attrs, slog.Time("until", h.until))
	}
	if trouble == unreachable {
		attrs = append(attrs, slog.Int("attempt", h.attempts), slog.Int("max_connection_attempts", h.maxAttempts))
	}
	p.later(func() {
		ctx, log := context.Background(), p.opts.Log
		switch trouble {
		case well:
			log.LogAttrs(ctx, level, "relay takes no more sessions", attrs...)
		case unreachable:
			log.LogAttrs(ctx, level, "cannot connect to relay", attrs...)
		case parked:
			log.LogAttrs(ctx, level, "relay is parked", attrs...)
		case worthless:
			log.LogAttrs(ctx, level, "relay is worthless", attrs...)
		}
	})
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
