package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"bulkmail/subjects"
	"bulkmail/subjects/tail"
)

// A watch follows the journals and dead letters of one campaign from its first
// entry.
type watch struct {
	campaign string
	events   chan event
	failed   chan error
	cancel   context.CancelFunc
	pumps    sync.WaitGroup
}

// event is one journal entry, or one dead letter.
type event struct {
	batch  string
	entry  subjects.Entry
	reason string // of a dead letter of which no journal will say that it is done
}

func newWatch(ctx context.Context, c *client, campaign string) (*watch, error) {
	entries, err := tail.Open(ctx, c.js, c.names.OutcomesStream(), c.names.CampaignOutcomes(campaign), 0)
	if err != nil {
		return nil, fmt.Errorf("watch campaign %s: %w", campaign, err)
	}
	dead, err := tail.Open(ctx, c.js, c.names.DeadStream(), c.names.Dead(campaign), 0)
	if err != nil {
		entries.Stop()
		return nil, fmt.Errorf("watch campaign %s: %w", campaign, err)
	}
	w := &watch{campaign: campaign, events: make(chan event), failed: make(chan error, 2)}
	ctx, w.cancel = context.WithCancel(ctx)
	w.pump(ctx, entries, func(m jetstream.Msg) (e event, err error) {
		e.batch, e.entry, err = c.decodeEntry(m)
		return e, err
	})
	w.pump(ctx, dead, func(m jetstream.Msg) (event, error) {
		e := event{batch: m.Headers().Get(subjects.HeaderBatch)}
		if m.Headers().Get(subjects.HeaderCause) != subjects.CauseExpired { // that is an outcome
			e.reason = m.Headers().Get(subjects.HeaderReason)
		}
		return e, nil
	})
	return w, nil
}

func (w *watch) pump(ctx context.Context, from *tail.Tail, decode func(jetstream.Msg) (event, error)) {
	w.pumps.Go(func() {
		defer from.Stop()
		for {
			m, err := from.Next(ctx)
			var e event
			if err == nil {
				e, err = decode(m)
			}
			if err != nil {
				w.failed <- err
				return
			}
			select {
			case w.events <- e:
			case <-ctx.Done():
				return
			}
		}
	})
}

func (w *watch) stop() {
	w.cancel()
	w.pumps.Wait()
}

// next waits for the next event at most until the tick, which is no error.
func (w *watch) next(ctx context.Context, tick <-chan time.Time) (e event, ok bool, err error) {
	select {
	case e := <-w.events:
		return e, true, nil
	case err := <-w.failed:
		return event{}, false, fmt.Errorf("watch campaign %s: %w", w.campaign, err)
	case <-tick:
		return event{}, false, nil
	case <-ctx.Done():
		return event{}, false, ctx.Err()
	}
}

// A summary adds up what became of recipients.
type summary struct {
	status  map[subjects.Status]int
	relay   map[string]map[subjects.Status]int
	attempt map[int]int // accepted at the n-th attempt
	dead    []string    // reasons
}

func newSummary() *summary {
	return &summary{
		status:  make(map[subjects.Status]int),
		relay:   make(map[string]map[subjects.Status]int),
		attempt: make(map[int]int),
	}
}

// add takes in an entry. Deferrals are counted as often as they happen, final
// results happen once to each recipient.
func (s *summary) add(e subjects.Entry) {
	if e.Event == subjects.Sending {
		return
	}
	for _, r := range e.Results {
		s.status[r.Status] += len(r.Recipients)
		if s.relay[r.Relay] == nil {
			s.relay[r.Relay] = make(map[subjects.Status]int)
		}
		s.relay[r.Relay][r.Status] += len(r.Recipients)
		if r.Status == subjects.Accepted {
			s.attempt[e.Attempt] += len(r.Recipients)
		}
	}
}

// final is how many recipients have a final outcome.
func (s *summary) final() int {
	n := 0
	for status, of := range s.status {
		if status.Final() {
			n += of
		}
	}
	return n
}

// note is the summary in one line, for progress.
func (s *summary) note() string {
	var parts []string
	for _, status := range subjects.Statuses() {
		if n := s.status[status]; n > 0 {
			name := string(status)
			if status == subjects.Deferred {
				name = "deferred so far"
			}
			parts = append(parts, number(n)+" "+name)
		}
	}
	return strings.Join(parts, ", ")
}

// MarshalJSON gives the final outcomes as an object of status and count.
func (s *summary) MarshalJSON() ([]byte, error) {
	final := make(map[subjects.Status]int)
	for status, n := range s.status {
		if status.Final() {
			final[status] = n
		}
	}
	return json.Marshal(final)
}

// print prints the final outcomes by relay, with a line of totals.
func (s *summary) print(w io.Writer) error {
	header := []string{"relay"}
	var shown []subjects.Status
	for _, status := range subjects.Statuses() {
		if s.status[status] > 0 {
			shown = append(shown, status)
			header = append(header, "#"+string(status))
		}
	}
	t := newTable(header...)
	line := func(name string, of map[subjects.Status]int) {
		cells := []any{name}
		for _, status := range shown {
			cells = append(cells, of[status])
		}
		t.row(cells...)
	}
	for _, name := range sortedKeys(s.relay) {
		shownName := name
		if name == "" {
			shownName = "(none)" // addresses that cannot be sent to
		}
		line(shownName, s.relay[name])
	}
	line("total", s.status)
	return t.print(w)
}
