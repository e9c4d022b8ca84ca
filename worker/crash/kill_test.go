//go:build crash

package crash_test

import (
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"
)

// How long workers are killed with each setting of IN_DOUBT, and how many kills
// there must be at least.
const (
	killFor  = time.Minute
	minKills = 160
)

// pace is the time between two kills; about half of the workers of any moment
// have had time to do something.
const pace = 250 * time.Millisecond

func TestAWorkerKilledAnywhereLosesNobodyAndDoublesWhatWasInFlightAtMost(t *testing.T) {
	duration := killFor
	if s := os.Getenv("BULKMAIL_CRASH_FOR"); s != "" {
		var err error
		if duration, err = time.ParseDuration(s); err != nil {
			t.Fatalf("BULKMAIL_CRASH_FOR: %v", err)
		}
	}
	var accounts []account
	for _, inDoubt := range []string{"resend", "skip"} {
		t.Run("IN_DOUBT="+inDoubt, func(t *testing.T) {
			a := killWorkers(t, inDoubt, duration, false)
			a.check(t)
			if inDoubt == "skip" && a.duplicates > 0 {
				t.Errorf("%d duplicates", a.duplicates)
			}
			accounts = append(accounts, a)
		})
	}
	t.Run("letters", func(t *testing.T) {
		a := killWorkers(t, "resend", duration/2, true)
		a.check(t)
		accounts = append(accounts, a)
	})
	table("workers killed with -9", pointsOf("skip"), "kill", accounts...)
}

func pointsOf(inDoubt string) []point {
	points := []point{beforeMAIL, betweenRCPTAndDATA, inTheBody}
	if inDoubt == "skip" {
		points = append(points, afterAnnouncement)
	}
	return append(points, afterTheDot, afterTheReply, whileRecorded, afterTheRecord, atRandom)
}

func killWorkers(t *testing.T, inDoubt string, duration time.Duration, letters bool) account {
	b := embedded(t)
	s := openSink(t)
	title, env := "IN_DOUBT="+inDoubt, []string{"BULKMAIL_IN_DOUBT=" + inDoubt}
	if letters {
		title = "letters"
		env = append(env, "BULKMAIL_UNSUBSCRIBE_URL=https://news.example.com/u/", "BULKMAIL_DKIM_FILE="+signing(t))
	}
	f := newFleet(t, s, []string{strings.TrimPrefix(b.URL(), "nats://")}, env...)
	s.letters = letters
	s.open(t)
	h := join(t, []string{b.URL()}, 1)
	h.letters = letters
	h.storeLarge(t)
	stop := h.load(t, 40, true)
	defer stop()
	for range 4 {
		f.startWorker()
	}

	var kills []*kill
	points := pointsOf(inDoubt)
	least := min(minKills, int(minKills*duration/killFor)) // a short run is for trying the harness
	begin := time.Now()
	next := time.NewTicker(pace)
	defer next.Stop()
	for i := 0; time.Since(begin) < duration || len(kills) < least; i++ {
		<-next.C
		at := points[i%len(points)]
		if at == atRandom {
			<-time.After(rand.N(pace))
			kills = append(kills, f.killAny())
		} else {
			f.arm(at)
			if at == beforeMAIL {
				f.startWorker() // who connects anew; the others keep their sessions
			}
			select {
			case k := <-f.hits:
				kills = append(kills, k)
			case <-time.After(waitAtMost):
				t.Fatalf("no worker came to: %s", at)
			}
		}
		if at != beforeMAIL {
			f.startWorker()
		}
	}
	stop()
	h.settle(t)
	f.dismissAll()

	a := h.settleAccounts(t, title, f, f.excuse)
	if letters {
		s.checkLetters(t, a.duplicates)
	}
	for _, k := range kills {
		a.kills[k.point]++
	}
	for _, p := range points {
		if a.kills[p] == 0 {
			t.Errorf("nobody was killed %s", p)
		}
	}
	return a
}
