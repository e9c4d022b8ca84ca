package smtp

import (
	"testing"
	"time"
)

func TestRepliesMeanWhatTheTableSays(t *testing.T) {
	t.Parallel()
	unwell, loud := verdict{meaning: relayUnwell}, verdict{meaning: relayUnwell, loud: true}
	after := func(d time.Duration) verdict { return verdict{meaning: relayUnwell, retryAfter: d} }
	is := func(m meaning) verdict { return verdict{meaning: m} }
	blames := func(m meaning, b Blame) verdict { return verdict{meaning: m, blame: b} }
	login := verdict{meaning: recipientRejected, blame: BlameRelay, loud: true}
	for _, c := range []struct {
		to       command
		code     int
		enhanced string
		text     string
		in       circumstances
		want     verdict
	}{
		{cmdConnect, 220, "", "mx.test", circumstances{}, is(goOn)},
		{cmdConnect, 421, "4.3.2", "down", circumstances{}, unwell},
		{cmdConnect, 450, "", "busy", circumstances{}, unwell},
		{cmdConnect, 554, "", "no service", circumstances{}, loud},
		{cmdConnect, 521, "", "no mail", circumstances{}, loud},
		{cmdEHLO, 250, "", "mx.test", circumstances{}, is(goOn)},
		{cmdEHLO, 550, "", "go away", circumstances{}, loud},
		{cmdAuth, 334, "", "", circumstances{}, is(goOn)},
		{cmdAuth, 454, "4.7.0", "later", circumstances{}, unwell},
		{cmdAuth, 535, "5.7.8", "wrong", circumstances{}, loud},
		{cmdRSET, 502, "", "what", circumstances{}, is(outOfStep)},

		{cmdMAIL, 250, "", "", circumstances{}, is(goOn)},
		{cmdMAIL, 354, "", "", circumstances{}, is(outOfStep)},
		{cmdMAIL, 199, "", "", circumstances{}, is(outOfStep)},
		{cmdMAIL, 451, "4.1.8", "cannot resolve", circumstances{}, blames(envelopeDeferred, BlameEnvelope)},
		{cmdMAIL, 450, "4.7.1", "greylisted, try again in 300 seconds", circumstances{}, blames(envelopeDeferred, BlameEnvelope)},
		{cmdMAIL, 550, "5.1.8", "bad sender", circumstances{}, blames(envelopeRejected, BlameEnvelope)},
		{cmdMAIL, 552, "5.3.4", "too big", circumstances{}, blames(envelopeRejected, BlameRelay)},
		{cmdMAIL, 452, "4.3.1", "Insufficient system storage", circumstances{}, unwell},
		{cmdMAIL, 452, "", "Insufficient system storage", circumstances{}, unwell},
		{cmdMAIL, 451, "4.3.5", "Server configuration error", circumstances{}, unwell},
		{cmdMAIL, 450, "4.7.1", "Error: too much mail from 127.0.0.1", circumstances{}, unwell},
		{cmdMAIL, 454, "", "Throttling failure: Daily message quota exceeded.", circumstances{}, unwell},
		{cmdMAIL, 451, "4.7.0", "rate limit exceeded, please retry in 2 minutes", circumstances{}, after(2 * time.Minute)},
		{cmdMAIL, 451, "4.7.0", "too many messages in this session", circumstances{}, is(sessionOver)},
		{cmdMAIL, 421, "4.7.0", "mx too many messages in this connection", circumstances{}, is(sessionOver)},
		{cmdMAIL, 421, "4.7.0", "too many concurrent connections, mail refused", circumstances{}, unwell},
		{cmdMAIL, 421, "4.4.2", "mx Error: timeout exceeded", circumstances{}, is(sessionOver)},
		{cmdMAIL, 421, "4.7.0", "Try again later", circumstances{}, unwell},
		{cmdMAIL, 421, "", "wait 1 hour", circumstances{}, after(time.Hour)},
		{cmdMAIL, 530, "5.7.0", "Must issue STARTTLS first", circumstances{}, loud},
		{cmdMAIL, 550, "5.7.1", "Authentication required", circumstances{}, loud},
		{cmdMAIL, 503, "5.5.1", "nested MAIL command", circumstances{}, is(outOfStep)},
		{cmdMAIL, 500, "", "what", circumstances{}, is(outOfStep)},
		{cmdMAIL, 554, "5.5.1", "Error", circumstances{}, is(outOfStep)},
		{cmdMAIL, 554, "", "SMTP synchronization error", circumstances{overlapped: true}, is(outOfStep)},

		{cmdRCPT, 250, "2.1.5", "ok", circumstances{}, is(goOn)},
		{cmdRCPT, 251, "", "will forward", circumstances{}, is(goOn)},
		{cmdRCPT, 252, "", "cannot verify", circumstances{}, is(goOn)},
		{cmdRCPT, 450, "4.7.1", "Error: too many recipients from 127.0.0.1", circumstances{}, is(recipientDeferred)},
		{cmdRCPT, 451, "", "busy", circumstances{taken: 3}, is(recipientDeferred)},
		{cmdRCPT, 450, "5.1.1", "class disagrees", circumstances{}, is(recipientDeferred)},
		{cmdRCPT, 550, "4.1.1", "class disagrees", circumstances{}, is(recipientRejected)},
		{cmdRCPT, 550, "5.1.1", "no such user", circumstances{}, is(recipientRejected)},
		{cmdRCPT, 554, "5.7.1", "Relay access denied", circumstances{}, blames(recipientRejected, BlameRelay)},
		{cmdRCPT, 556, "5.1.10", "null MX", circumstances{}, is(recipientRejected)},
		{cmdRCPT, 501, "5.1.3", "bad syntax", circumstances{}, is(recipientRejected)},
		{cmdRCPT, 500, "", "line too long", circumstances{}, is(recipientRejected)},
		{cmdRCPT, 452, "4.5.3", "too many", circumstances{}, is(recipientDeferred)},
		{cmdRCPT, 452, "4.5.3", "too many", circumstances{taken: 1}, is(tooMany)},
		{cmdRCPT, 452, "", "", circumstances{taken: 1}, is(tooMany)},
		{cmdRCPT, 552, "", "too many", circumstances{taken: 1}, is(tooMany)},
		{cmdRCPT, 552, "", "too many", circumstances{}, is(recipientDeferred)},
		{cmdRCPT, 452, "4.2.2", "full", circumstances{taken: 1}, is(recipientDeferred)},
		{cmdRCPT, 552, "5.2.2", "full", circumstances{taken: 1}, is(recipientRejected)},
		{cmdRCPT, 552, "5.3.4", "message too big", circumstances{taken: 1}, blames(recipientRejected, BlameRelay)},
		{cmdRCPT, 552, "4.2.2", "class disagrees", circumstances{taken: 1}, is(tooMany)},
		{cmdRCPT, 503, "5.5.1", "need MAIL", circumstances{}, is(outOfStep)},
		{cmdRCPT, 530, "5.7.0", "Authentication required", circumstances{}, login},
		{cmdRCPT, 550, "5.7.1", "Relaying denied. Proper authentication required.", circumstances{}, login},
		{cmdRCPT, 421, "4.3.2", "down", circumstances{}, unwell},

		{cmdMAIL, 550, "5.1.1", "no such user", circumstances{}, is(outOfStep)},
		{cmdDATA, 550, "", "no such user", circumstances{}, is(outOfStep)},
		{cmdDATA, 450, "4.2.1", "later", circumstances{}, is(outOfStep)},
		{cmdDATA, 354, "", "go on", circumstances{}, is(goOn)},
		{cmdDATA, 250, "", "ok", circumstances{}, is(outOfStep)},
		{cmdDATA, 451, "4.3.0", "not now", circumstances{}, blames(envelopeDeferred, BlameEnvelope)},
		{cmdDATA, 554, "5.7.1", "no", circumstances{}, blames(envelopeRejected, BlameEnvelope)},
		{cmdDATA, 503, "", "need RCPT", circumstances{}, is(outOfStep)},
		{cmdDATA, 554, "5.5.1", "no valid recipients", circumstances{}, is(outOfStep)},

		{cmdEnd, 250, "2.0.0", "queued", circumstances{}, is(goOn)},
		{cmdEnd, 354, "", "", circumstances{}, is(unknowable)},
		{cmdEnd, 199, "", "", circumstances{}, is(unknowable)},
		{cmdEnd, 451, "4.3.0", "queue file write error", circumstances{}, is(envelopeDeferred)},
		{cmdEnd, 450, "4.7.1", "greylisted", circumstances{}, is(envelopeDeferred)},
		{cmdEnd, 554, "5.7.1", "spam", circumstances{}, blames(envelopeRejected, BlameEnvelope)},
		{cmdEnd, 552, "5.3.4", "too big", circumstances{}, blames(envelopeRejected, BlameRelay)},
		{cmdEnd, 554, "5.5.1", "whatever", circumstances{}, blames(envelopeRejected, BlameEnvelope)},
		{cmdEnd, 452, "4.3.1", "storage", circumstances{}, unwell},
		{cmdEnd, 454, "", "Throttling failure: Maximum sending rate exceeded", circumstances{}, unwell},
		{cmdEnd, 454, "4.7.0", "Maximum sending rate exceeded; try again in 5 minutes", circumstances{}, after(5 * time.Minute)},
		{cmdEnd, 421, "4.3.2", "down", circumstances{}, unwell},
		{cmdEnd, 503, "5.5.1", "bad sequence", circumstances{}, is(outOfStep)},
		{cmdEnd, 500, "5.5.1", "Pipelining not supported", circumstances{overlapped: true}, is(outOfStep)},
	} {
		r := &Reply{Code: c.code, Enhanced: c.enhanced, Text: c.text, Command: c.to.String()}
		if got := classify(c.to, r, c.in); got != c.want {
			t.Errorf("%s to %s with %+v: got %+v, want %+v", r, c.to, c.in, got, c.want)
		}
	}
}

func TestHintsSayHowLongToWait(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{
		"try again in 30 seconds":                30 * time.Second,
		"try again later in 5 min":               5 * time.Minute,
		"please retry after 90s":                 90 * time.Second,
		"please wait 2 hours":                    2 * time.Hour,
		"greylisted, try again in 300 seconds.":  5 * time.Minute,
		"try again in 99999 hours":               24 * time.Hour,
		"try again later":                        0,
		"300 messages in 60 seconds were enough": 0,
		"try again at mx2. 5 minutes":            0,
		"":                                       0,
	} {
		if got := retryHint(text); got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}
