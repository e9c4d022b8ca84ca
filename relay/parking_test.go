package relay

import (
	"bytes"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"bulkmail/relay/smtp"
)

var (
	refused   = &smtp.Error{MBS: "MBS003", Command: "CONNECT", Unwell: true, Err: errors.New("connection refused")}
	throttled = &smtp.Error{
		MBS: "MBS013", Command: "END", Unwell: true,
		Reply: &smtp.Reply{Code: 454, Enhanced: "4.3.2", Text: "Throttling failure", Command: "END"},
	}
	badLogin = &smtp.Error{
		Command: "AUTH", Unwell: true, Loud: true,
		Reply: &smtp.Reply{Code: 535, Enhanced: "5.7.8", Text: "bad credentials", Command: "AUTH"},
	}
)

// unwell says to each envelope of the first n that the relay is unwell.
func unwell(n int, err error) func(int, *smtp.Envelope) error {
	return func(k int, e *smtp.Envelope) error {
		if k <= n {
			return err
		}
		answer(e, smtp.Accepted)
		return nil
	}
}

func never(err error) func(int) error { return func(int) error { return err } }

// began are the times of the envelopes since the first.
func began(r *recorder) []time.Duration {
	var at []time.Duration
	for _, s := range r.envelopes() {
		at = append(at, s.began.Sub(r.envelopes()[0].began))
	}
	return at
}

// logRecorder is a log that a test can read.
type logRecorder struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logRecorder) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *logRecorder) lines(with string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.DeleteFunc(strings.Split(l.buf.String(), "\n"), func(line string) bool { return !strings.Contains(line, with) })
}

func (l *logRecorder) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func TestAnUnwellRelayIsParkedAndAnotherTakesItsEnvelopes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := &recorder{latency: time.Millisecond, reply: unwell(1000, throttled)}
		b := &recorder{latency: time.Millisecond}
		var log logRecorder
		p := NewPool([]Relay{named("a", a, connections(4)), named("b", b, connections(4))}, Options{Log: log.logger()})
		l := add(p, "x", 3000)
		<-l.finished
		if l.by["b"] != 3000 || len(l.stalls) > 0 {
			t.Errorf("accepted by %v, told of %d stalls", l.by, len(l.stalls))
		}
		s := p.Status()[0]
		if s.State != Parked || s.LastError == nil || s.LastError.MBS != "MBS013" || s.LastError.Code != 454 || s.LastError.Enhanced != "4.3.2" {
			t.Errorf("%+v", s)
		}
		closePool(t, p)
		if n := len(log.lines("relay is parked")); n != 1 {
			t.Errorf("%d log lines for one parking", n)
		}
		if err, ok := errors.AsType[*Error](l.errs[0]); !ok || err.Relay != "a" || !errors.Is(err, throttled) {
			t.Errorf("the source was told %v", l.errs[0])
		}
	})
}

func TestAParkedRelayIsProbedWithOneEnvelopeAfterABackoffThatDoubles(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{reply: unwell(8, throttled), survives: true}
		p := NewPool([]Relay{named("a", r, connections(1))}, Options{Backoff: 5 * time.Second, MaxBackoff: time.Minute})
		l := add(p, "x", 100)
		<-l.finished
		closePool(t, p)
		want := []time.Duration{0, 5, 15, 35, 75, 135, 195, 255, 315} // 5, 10, 20, 40, 60, 60, ...
		for i, at := range began(r)[:9] {
			if at != want[i]*time.Second {
				t.Errorf("envelope %d went out after %v, want %v", i+1, at, want[i]*time.Second)
			}
		}
		if len(l.stalls) != 8 {
			t.Errorf("the source was told of %d stalls, want one a parking", len(l.stalls))
		}
	})
}

func TestSessionsThatFailTogetherParkTheRelayOnce(t *testing.T) {
	t.Parallel()
	for name, survives := range map[string]bool{"and end": false, "and go on": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				r := &recorder{latency: time.Second, reply: unwell(4, throttled), survives: survives}
				var log logRecorder
				p := NewPool([]Relay{named("a", r, connections(4))}, Options{Log: log.logger()})
				l := add(p, "x", 1000)
				<-l.finished
				closePool(t, p)
				at := began(r)
				if at[3] != 0 || at[4] != 6*time.Second {
					t.Errorf("envelopes went out after %v, want one after 5 s", at)
				}
				if at[5] != 7*time.Second {
					t.Errorf("the second after the parking went out at %v, before the probe had its reply", at[5])
				}
				if parked, back := len(log.lines("relay is parked")), len(log.lines("relay is back")); parked != 1 || back != 1 {
					t.Errorf("%d times parked, %d times back", parked, back)
				}
			})
		})
	}
}

func TestWhatWasBegunBeforeTheParkingDoesNotEndIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{reply: unwell(1, throttled), slow: func(session int) time.Duration { return time.Duration(session) * time.Second }}
		p := NewPool([]Relay{named("a", r, connections(2))}, Options{})
		l := add(p, "x", 300)
		<-l.finished
		closePool(t, p)
		if at := began(r); at[0] != 0 || at[1] != 0 || at[2] != 6*time.Second {
			t.Errorf("envelopes went out after %v, want the third when the parking of 5 s is over", at)
		}
	})
}

func TestADialThatFailsBesideOneThatSucceedsDoesNotParkTheRelay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tooMany := &smtp.Error{MBS: "MBS004", Command: "CONNECT", Unwell: true, Reply: &smtp.Reply{Code: 421, Text: "too many connections"}}
		r := &recorder{
			latency:  time.Millisecond,
			dialSlow: func(n int) time.Duration { return time.Duration(n) * time.Second },
			dial: func(n int) error {
				if n == 1 {
					return tooMany
				}
				return nil
			},
		}
		p := NewPool([]Relay{named("a", r, connections(2), func(c *Config) { c.MaxConnectionAttempts = 1; c.WorthlessFor = None })}, Options{})
		start := time.Now()
		l := add(p, "x", 1000)
		<-l.finished
		if took := time.Since(start); took != 2*time.Second+10*time.Millisecond {
			t.Errorf("took %v", took)
		}
		closePool(t, p)
	})
}

func TestTheHintOfTheServerIsHeeded(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ hint, want time.Duration }{
		"a minute": {time.Minute, time.Minute},
		"a second": {time.Second, time.Second},
		"a day":    {24 * time.Hour, time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				err := *throttled
				err.RetryAfter = c.hint
				r := &recorder{reply: unwell(1, &err)}
				p := NewPool([]Relay{named("a", r)}, Options{})
				<-add(p, "x", 100).finished
				closePool(t, p)
				if at := began(r)[1]; at != c.want {
					t.Errorf("probed after %v, want %v", at, c.want)
				}
			})
		})
	}
}

func TestADialThatFailsTouchesNoEnvelope(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, b := &recorder{dial: never(refused)}, &recorder{latency: time.Millisecond}
		p := NewPool([]Relay{named("a", a), named("b", b)}, Options{})
		l := add(p, "x", 1000)
		<-l.finished
		closePool(t, p)
		if l.by["b"] != 1000 || len(l.errs) > 0 || len(l.stalls) > 0 {
			t.Errorf("accepted by %v, errors %v, %d stalls", l.by, l.errs, len(l.stalls))
		}
	})
}

func TestARelayIsWorthlessAfterMaxConnectionAttemptsAndThenProbed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var dials []time.Duration
		began := time.Now()
		r := &recorder{dial: func(n int) error {
			mu.Lock()
			defer mu.Unlock()
			dials = append(dials, time.Since(began))
			if n < 14 {
				return refused
			}
			return nil
		}}
		var log logRecorder
		p := NewPool([]Relay{named("a", r, connections(3))}, Options{DialBackoff: time.Second, Log: log.logger()})
		l := add(p, "x", 300)
		<-l.finished
		closePool(t, p)
		s, m := time.Second, time.Minute
		want := []time.Duration{
			0, 0, 0, s, 3 * s, 7 * s, 15 * s, // max_connection_attempts
			15*s + m, 15*s + 3*m, 15*s + 7*m, 15*s + 15*m, 15*s + 31*m, 15*s + 63*m, // 1, 2, 4, 8, 16, 32 minutes
			15*s + 123*m, // an hour at most
		}
		if !slices.Equal(dials[:len(want)], want) {
			t.Errorf("dials after %v\nwant %v", dials, want)
		}
		if n := len(log.lines("relay is worthless")); n != 7 {
			t.Errorf("%d times worthless in the log", n)
		}
		last := l.stalls[len(l.stalls)-1]
		why, ok := errors.AsType[*Error](last.why)
		if !ok || why.MBS != "MBS001" || !strings.Contains(why.Error(), "a is worthless until") || !strings.Contains(why.Error(), "connection refused") {
			t.Errorf("the source was told %v", last.why)
		}
	})
}

func TestWorthlessForNoneIsForGoodAsInMailBulkmail(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		well := false
		r := &recorder{dial: func(int) error {
			if well {
				return nil
			}
			return refused
		}}
		p := NewPool([]Relay{named("a", r, func(c *Config) { c.WorthlessFor = None; c.MaxConnectionAttempts = 2 })}, Options{})
		l := add(p, "x", 100)
		time.Sleep(1000 * time.Hour)
		if n := r.dialed(); n != 2 {
			t.Errorf("%d dials", n)
		}
		if s := p.Status()[0]; s.State != Worthless || !s.Until.IsZero() || s.LastError.MBS != "MBS003" {
			t.Errorf("%+v", s)
		}
		if len(l.stalls) != 1 || !l.stalls[0].until.IsZero() {
			t.Fatalf("stalls %+v, want one that nothing but a person ends", l.stalls)
		}
		well = true
		p.Reset("a")
		<-l.finished
		closePool(t, p)
	})
}

func TestAServerThatAnswersTheDialWithTroubleIsLeftAloneForLonger(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		full := &smtp.Error{MBS: "MBS004", Command: "CONNECT", Unwell: true, Reply: &smtp.Reply{Code: 421, Text: "too busy"}}
		var dials []time.Duration
		began := time.Now()
		r := &recorder{dial: func(n int) error {
			dials = append(dials, time.Since(began))
			if n < 3 {
				return full
			}
			return nil
		}}
		p := NewPool([]Relay{named("a", r)}, Options{Backoff: 5 * time.Second})
		<-add(p, "x", 1).finished
		closePool(t, p)
		if want := []time.Duration{0, 5 * time.Second, 15 * time.Second}; !slices.Equal(dials, want) {
			t.Errorf("dials after %v, want %v", dials, want)
		}
	})
}

func TestARelayThatTakesNoMoreSessionsKeepsThoseItHas(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tooMany := &smtp.Error{MBS: "MBS004", Command: "CONNECT", Unwell: true, Reply: &smtp.Reply{Code: 421, Text: "too many connections"}}
		r := &recorder{latency: time.Millisecond, dial: func(n int) error {
			if n > 2 {
				return tooMany
			}
			return nil
		}}
		var log logRecorder
		p := NewPool([]Relay{named("a", r, connections(4))}, Options{Log: log.logger()})
		began := time.Now()
		l := add(p, "x", 10_000)
		<-l.finished
		if took := time.Since(began); took > 60*time.Millisecond {
			t.Errorf("100 envelopes on two sessions took %v", took)
		}
		if s := p.Status()[0]; s.State != Awake || s.Sessions != 2 {
			t.Errorf("%+v", s)
		}
		closePool(t, p)
		if n := len(log.lines("takes no more sessions")); n != 1 {
			t.Errorf("%d log lines", n)
		}
	})
}

func TestWrongCredentialsAreLoggedLoudlyOnceAParking(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, b := &recorder{dial: never(badLogin)}, &recorder{latency: 40 * time.Second}
		var log logRecorder
		p := NewPool([]Relay{
			named("a", a, connections(4), func(c *Config) { c.Where, c.User, c.Password = "relays.yaml:7", "u", "p" }),
			named("b", b),
		}, Options{Log: log.logger()})
		<-add(p, "x", 3000).finished
		closePool(t, p)
		loud := log.lines("level=ERROR")
		if len(loud) != 3 || a.dialed() != 3 { // after 0, 5 and 15 minutes, one at a time: wrong passwords lock accounts
			t.Errorf("%d loud lines and %d logins in 20 minutes:\n%s", len(loud), a.dialed(), strings.Join(loud, "\n"))
		}
		if !strings.Contains(loud[0], "check user, password or password_file, and auth in relays.yaml:7") || !strings.Contains(loud[0], "535") {
			t.Error(loud[0])
		}
	})
}

func TestAServerThatJudgesNobodyIsNotAskedWithoutPause(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := &recorder{latency: time.Millisecond, reply: func(_ int, e *smtp.Envelope) error { return nil }}
		p := NewPool([]Relay{named("a", a)}, Options{})
		l := add(p, "x", 100)
		time.Sleep(time.Minute)
		if n := len(a.envelopes()); n > 5 {
			t.Errorf("%d envelopes in a minute", n)
		}
		closePool(t, p)
		if len(l.queue) != 100 {
			t.Errorf("%d of 100 left", len(l.queue))
		}
	})
}

func TestSourcesAreToldOncePerStallAndWorkGoesOnAfterwards(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := &recorder{latency: time.Millisecond, reply: unwell(1, throttled)}
		b := &recorder{latency: time.Millisecond}
		p := NewPool([]Relay{
			named("a", a, func(c *Config) { c.EnvelopeLimit = 10 }),
			named("b", b, func(c *Config) { c.MaxMessagesWhileAwake = 50; c.SleepLength = 20 * time.Second }),
		}, Options{})
		began := time.Now()
		x, y := add(p, "x", 100), add(p, "y", 100)
		time.Sleep(time.Second)
		late, none := add(p, "late", 10), add(p, "none", 0)
		p.Ready(x)
		<-x.finished
		<-y.finished
		<-late.finished
		closePool(t, p)
		for _, l := range []*list{x, y, late} {
			if len(l.stalls) != 1 {
				t.Errorf("list %s was told %+v, want once", l.id, l.stalls)
				continue
			}
			s := l.stalls[0]
			if d := s.until.Sub(began); d != 5*time.Second+time.Millisecond {
				t.Errorf("list %s was told to wait until %v after the start, want when the first relay can take again", l.id, d)
			}
			for _, part := range []string{"no relay can take anything", "a is parked until", "Throttling failure", "b is asleep (max_messages_while_awake) until"} {
				if !strings.Contains(s.why.Error(), part) {
					t.Errorf("the reason %q lacks %q", s.why, part)
				}
			}
		}
		if len(none.stalls) != 0 {
			t.Error("a source without work was told")
		}
	})
}

func TestAPoolWithoutRelaysStalls(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := NewPool(nil, Options{})
		l := add(p, "x", 1)
		synctest.Wait()
		closePool(t, p)
		if len(l.stalls) != 1 || !l.stalls[0].until.IsZero() {
			t.Errorf("%+v", l.stalls)
		}
	})
}

// A relay that cannot be reached is told of as such, and how many attempts are
// left; one that says that it is unwell as parked. The difference is what an
// operator does next.
func TestARelayOutOfReachIsNotSaidToBeParked(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{dial: func(n int) error {
			if n <= 2 {
				return refused
			}
			return nil
		}}
		var log logRecorder
		p := NewPool([]Relay{named("a", r)}, Options{Log: log.logger()})
		l := add(p, "x", 10)
		<-l.finished
		closePool(t, p)
		if lines := log.lines("relay is parked"); len(lines) > 0 {
			t.Errorf("said to be parked: %v", lines)
		}
		lines := log.lines("cannot connect to relay")
		if len(lines) != 2 || !strings.Contains(lines[1], "attempt=2 max_connection_attempts=5") {
			t.Errorf("got %v", lines)
		}
	})
}
