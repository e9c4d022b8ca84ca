package fleet

import (
	"bytes"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"bulkmail/relay"
	"bulkmail/relay/caps/capstest"
	"bulkmail/subjects"
	"bulkmail/subjects/broker/brokertest"
)

func TestNotesNameBothValuesAndWhatCounts(t *testing.T) {
	t.Parallel()
	now := capstest.Noon
	says := func(worker, name, addr, caps string) subjects.WorkerRelays {
		return subjects.WorkerRelays{Worker: worker, Relays: []subjects.RelayStatus{{Relay: name, Addr: addr, Caps: caps}}}
	}
	const addr = "mx.example.com:25"
	left := subjects.RelayLedger{Addr: addr, Caps: "max_messages=50", Used: 50}
	over := subjects.RelayLedger{Addr: addr, Caps: "max_messages=50", Used: 50, WindowEnds: now}
	rated := subjects.RelayLedger{Addr: addr, Caps: "max_rate=50/s", Used: 50}
	for name, c := range map[string]struct {
		workers []subjects.WorkerRelays
		ledgers map[string]subjects.RelayLedger
		want    []string // each in one note, in one note altogether
	}{
		"all the same":                     {workers: []subjects.WorkerRelays{says("a", "r", addr, "max_messages=50"), says("b", "r", addr, "max_messages=50")}},
		"different":                        {workers: []subjects.WorkerRelays{says("a", "r", addr, "max_messages=100"), says("b", "r", addr, "max_messages=200")}, want: []string{"relay r", "max_messages=100 on a", "max_messages=200 on b", "the loosest count"}},
		"none against some":                {workers: []subjects.WorkerRelays{says("a", "r", addr, "none"), says("b", "r", addr, "max_messages=200")}, want: []string{"none on a", "max_messages=200 on b"}},
		"a release that says nothing":      {workers: []subjects.WorkerRelays{says("a", "r", "", ""), says("b", "r", addr, "max_messages=200")}},
		"renamed":                          {workers: []subjects.WorkerRelays{says("a", "new", addr, "max_messages=50")}, ledgers: map[string]subjects.RelayLedger{"old": left}, want: []string{"relay new", "under the name old", "relays reset old"}},
		"a former name that somebody uses": {workers: []subjects.WorkerRelays{says("a", "new", addr, "max_messages=50"), says("b", "old", addr, "max_messages=50")}, ledgers: map[string]subjects.RelayLedger{"old": left}},
		"another server":                   {workers: []subjects.WorkerRelays{says("a", "new", "mx.example.net:25", "max_messages=50")}, ledgers: map[string]subjects.RelayLedger{"old": left}},
		"other caps":                       {workers: []subjects.WorkerRelays{says("a", "new", addr, "max_messages=60")}, ledgers: map[string]subjects.RelayLedger{"old": left}},
		"a window that is over":            {workers: []subjects.WorkerRelays{says("a", "new", addr, "max_messages=50")}, ledgers: map[string]subjects.RelayLedger{"old": over}},
		"a rate":                           {workers: []subjects.WorkerRelays{says("a", "new", addr, "max_rate=50/s")}, ledgers: map[string]subjects.RelayLedger{"old": rated}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := notes(c.workers, c.ledgers, now)
			if len(got) != min(len(c.want), 1) {
				t.Fatalf("notes: %q", got)
			}
			for _, want := range c.want {
				if !strings.Contains(got[0], want) {
					t.Errorf("%q does not say %q", got[0], want)
				}
			}
		})
	}
}

// A log is what was logged, readable meanwhile.
type log struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *log) count(s string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), s)
}

func TestWorkersWhoseCapsDifferAndRelaysThatWereRenamedAreSaidOnce(t *testing.T) {
	t.Parallel()
	url, kv := openBucket(t, false)
	b := &book{}
	named := func(name string, most int) relay.Relay {
		return one(name, b, func(c *relay.Config) { c.Host, c.Port, c.MaxMessages = "mx.example.com", 25, most })
	}
	former := startWorker(t, url, "w0", relay.Options{}, named("former", 50))
	begin([]*testWorker{former}, 5, 10)
	until(t, "the cap is used", func() bool { return b.accepted() == 50 })
	until(t, "the ledger says where", func() bool {
		e, err := kv.Get(t.Context(), subjects.RelayKey("former"))
		return err == nil && strings.Contains(string(e.Value()), "mx.example.com:25")
	})
	former.leave(t)

	var heard log
	f := New(brokertest.Connect(t, url), subjects.Names{}.RelayBucket(), Options{Worker: "w1", Log: slog.New(slog.NewTextHandler(&heard, nil))})
	pool := relay.NewPool([]relay.Relay{named("r", 50)}, relay.Options{Allowance: f.Allowance})
	f.Serve(pool, func() {})
	watched := &testWorker{fleet: f, pool: pool}
	until(t, "the former name is told", func() bool { return heard.count("under the name former") == 1 })

	other := startWorker(t, url, "w2", relay.Options{}, named("r", 200))
	until(t, "the difference is told", func() bool { return heard.count("max_messages=200 on w2; max_messages=50 on w1") == 1 })
	_, workers, err := Look(t.Context(), kv, nil)
	if err != nil {
		t.Fatal(err)
	}
	all, err := Notes(t.Context(), kv, workers)
	if err != nil || !slices.ContainsFunc(all, func(n string) bool { return strings.Contains(n, "max_messages=50 on w1") }) {
		t.Errorf("notes for people: %q (%v)", all, err)
	}
	if err := Reset(t.Context(), kv, "former"); err != nil {
		t.Fatal(err)
	}
	f.logNotes()
	other.leave(t)
	watched.leave(t)
	if n := heard.count("level=WARN"); n != 2 {
		t.Errorf("%d warnings, want each note once:\n%s", n, heard.b.String())
	}
}

func TestALedgerIsReadAsTheReleaseBeforeWroteIt(t *testing.T) {
	t.Parallel()
	// 691ad43 wrote this: 30 reported by this very entry, of 70 in all.
	const entry = `{"fresh":30,"used":70,"window_ends":"2026-03-02T00:00:00Z","awake":70,"recent":[[1772366399000000,40]],"paced":"2026-03-01T11:59:59Z","dry":true,"workers":{"a":{"held":20,"serial":3},"b":{"held":5,"serial":9,"wants":true,"seen":"2026-03-01T11:59:58Z"}}}`
	limits := relay.Config{MaxMessages: 100, MaxMessagesWindow: 24 * time.Hour, MaxMessagesWhileAwake: 70, SleepLength: time.Minute, MaxRate: relay.Rate{Messages: 1000, Per: time.Minute}}
	l, err := readLedger(limits.Caps(), []byte(entry), capstest.Noon)
	if err != nil {
		t.Fatal(err)
	}
	s := l.State
	if s.Used != 70 || s.Held != 25 || s.Awake != 0 || !s.AsleepUntil.Equal(capstest.Noon.Add(time.Minute)) {
		t.Errorf("read as %+v", s)
	}
	if want := [][2]int64{{1772366399000000, 40}, {capstest.Noon.UnixMicro(), 30}}; !slices.Equal(s.Recent, want) {
		t.Errorf("max_rate: %v, want %v", s.Recent, want)
	}
	if !l.workers["a"].Seen.Equal(capstest.Noon) || !l.wants("a") {
		t.Errorf("workers: %+v", l.workers)
	}
	if left := l.Left(capstest.Noon.Add(time.Hour)); left != 5 {
		t.Errorf("%d left, want 5 of max_messages", left)
	}
}
