//go:build crash

package crash_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"bulkmail/subjects"
	"bulkmail/subjects/tail"
)

// A ledger follows all journals, as a user who reads the outcomes would.
type ledger struct {
	names   subjects.Names
	reading sync.WaitGroup

	mu      sync.Mutex // guards what follows
	newest  map[string]subjects.Status
	finals  map[string][]final
	done    map[string]bool // by batch
	claims  []claim
	changed chan struct{}
}

// final is a final outcome on record.
type final struct {
	status subjects.Status
	pid    string // of the worker
	stored time.Time
}

// String is for failures.
func (f final) String() string {
	return fmt.Sprintf("%s by %s at %s", f.status, f.pid, f.stored.Local().Format("15:04:05.000"))
}

// claim is an attempt's begin.
type claim struct {
	batch, pid string
	delivery   string // as the broker counts
	stored     time.Time
}

// String is for failures.
func (c claim) String() string {
	return fmt.Sprintf("\nclaim of delivery %s by %s at %s", c.delivery, c.pid, c.stored.Local().Format("15:04:05.000"))
}

// claimsOf returns the claims of a batch. The caller holds mu.
func (l *ledger) claimsOf(batch string) []claim {
	var list []claim
	for _, c := range l.claims {
		if c.batch == batch {
			list = append(list, c)
		}
	}
	return list
}

func follow(t testing.TB, js jetstream.JetStream, names subjects.Names) *ledger {
	t.Helper()
	l := &ledger{
		names:   names,
		newest:  make(map[string]subjects.Status),
		finals:  make(map[string][]final),
		done:    make(map[string]bool),
		changed: make(chan struct{}),
	}
	ctx, cancel := context.WithCancel(context.Background())
	entries, err := tail.Open(ctx, js, names.OutcomesStream(), names.Outcomes("*", "*"), 0)
	if err != nil {
		t.Fatal(err)
	}
	l.reading.Go(func() {
		defer entries.Stop(ctx)
		for {
			msg, err := entries.Next(ctx)
			if err != nil {
				if ctx.Err() == nil {
					t.Errorf("follow journals: %v", err)
				}
				return
			}
			l.read(t, msg)
		}
	})
	t.Cleanup(func() {
		cancel()
		l.reading.Wait()
	})
	return l
}

func (l *ledger) read(t testing.TB, msg jetstream.Msg) {
	var e subjects.Entry
	if err := json.Unmarshal(msg.Data(), &e); err != nil {
		t.Errorf("journal entry %q: %v", msg.Data(), err)
		return
	}
	meta, err := msg.Metadata()
	if err != nil {
		t.Error(err)
		return
	}
	_, batch := l.names.Campaign(msg.Subject())
	// The process id, between the host's name and six characters.
	parts := strings.Split(e.Worker, "-")
	pid := parts[max(len(parts)-2, 0)]
	l.mu.Lock()
	defer l.mu.Unlock()
	switch e.Event {
	case subjects.Claimed:
		l.claims = append(l.claims, claim{batch, pid, msg.Headers().Get("Bulkmail-Delivery"), meta.Timestamp})
	case subjects.Done:
		l.done[batch] = true
	case subjects.Sending:
		return
	}
	for _, r := range e.Results {
		for _, recipient := range r.Recipients {
			if r.Status.Final() {
				l.finals[recipient] = append(l.finals[recipient], final{r.Status, pid, meta.Timestamp})
			}
			if !l.newest[recipient].Final() {
				l.newest[recipient] = r.Status
			}
		}
	}
	close(l.changed)
	l.changed = make(chan struct{})
}

// takenOver waits until another worker has claimed a batch that p held at the
// time, and returns when that was. Batches that wait for their retry come back
// earlier, and are not meant.
func (l *ledger) takenOver(t testing.TB, p *process, at time.Time) time.Time {
	t.Helper()
	var when time.Time
	early := at.Add(retryDelay * 12 / 10)
	l.wait(t, waitAtMost, "another worker to take over", func() bool {
		holder := make(map[string]string)
		for _, c := range l.claims {
			if c.stored.After(early) && holder[c.batch] == p.pid() && c.pid != p.pid() && !l.done[c.batch] {
				when = c.stored
				return true
			}
			if c.stored.Before(at) {
				holder[c.batch] = c.pid
			}
		}
		return false
	})
	return when
}

// holderAt returns who had claimed the batch last at the time. The caller holds
// mu.
func (l *ledger) holderAt(batch string, at time.Time) string {
	var holder string
	for _, c := range l.claims {
		if c.batch == batch && c.stored.Before(at) {
			holder = c.pid
		}
	}
	return holder
}

// wait waits until cond, which is called under the lock, holds.
func (l *ledger) wait(t testing.TB, limit time.Duration, what string, cond func() bool) {
	t.Helper()
	if !l.waitOr(limit, nil, cond) {
		t.Fatalf("the ledger waited in vain for %s", what)
	}
}

// waitOr is wait that gives up when stop is closed or limit is over; then it
// reports false.
func (l *ledger) waitOr(limit time.Duration, stop <-chan struct{}, cond func() bool) bool {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for {
		l.mu.Lock()
		ok, changed := cond(), l.changed
		l.mu.Unlock()
		if ok {
			return true
		}
		select {
		case <-changed:
		case <-stop:
			return false
		case <-timer.C:
			return false
		}
	}
}
