package campaign

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"bulkmail/subjects"
	"bulkmail/subjects/tail"
)

const (
	// The queue is looked at when no entry came for a while, and then less and
	// less often: what rests for an hour is no reason to ask without end.
	firstLook = 50 * time.Millisecond
	lastLook  = 2 * time.Second
	// emptyLooks is how often the queue is seen empty, with nothing new in the
	// journals, until recipients without an outcome are believed to have none:
	// in a cluster the stream of journals may be behind that of batches.
	emptyLooks = 5
)

// A Summary is what has become of the recipients of a campaign so far.
type Summary struct {
	Published int // recipients, as the campaign's record says; 0 where it has none

	// Final results are counted once a recipient, deferrals as often as they
	// happened.
	Outcomes map[subjects.Status]int
	Relays   map[string]map[subjects.Status]int // by the relay that was asked; "": none was

	Resting int                    // recipients that are deferred now, and wait for their next attempt
	State   subjects.CampaignState // known at the end alone

	Unreadable []*EntryError // entries of journals that were left out
	Dead       []DeadLetter  // batches that could not be read; known at the end alone
}

// Final is how many recipients have a final outcome.
func (s *Summary) Final() int {
	n := 0
	for status, of := range s.Outcomes {
		if status.Final() {
			n += of
		}
	}
	return n
}

// Failed is how many recipients did not get it for good: rejected, expired, in doubt
// or cancelled. Who is suppressed was not to get it.
func (s *Summary) Failed() int {
	return s.Outcomes[subjects.Rejected] + s.Outcomes[subjects.Expired] + s.Outcomes[subjects.InDoubt] + s.Outcomes[subjects.Cancelled]
}

func (s *Summary) add(before, after *subjects.Result) {
	if before != nil && before.Status == subjects.Deferred {
		s.Resting--
	}
	if after.Status == subjects.Deferred {
		s.Resting++
	}
	s.count(after.Relay, after.Status, 1)
}

func (s *Summary) count(relay string, status subjects.Status, n int) {
	of := s.Relays[relay]
	if of == nil {
		of = make(map[subjects.Status]int)
		s.Relays[relay] = of
	}
	if s.Outcomes[status] += n; s.Outcomes[status] == 0 {
		delete(s.Outcomes, status)
	}
	if of[status] += n; of[status] == 0 {
		delete(of, status)
	}
}

// Wait waits until nothing of a campaign is left in the queue and returns what
// became of its recipients. See [Client.Follow] for when that is an error.
func (c *Client) Wait(ctx context.Context, campaign string) (*Summary, error) {
	var last *Summary
	for s, err := range c.Follow(ctx, campaign) {
		if err != nil {
			return last, err
		}
		last = s
	}
	return last, nil
}

// Follow adds up a campaign from its beginning and yields the same Summary, again
// and again, as entries come and now and then while none do. It ends when the
// queue holds no batch of the campaign and its journals are read to their end. A
// campaign that is paused, or that waits for a worker, goes on being followed.
//
// An error is the last that it yields: that of ctx, [ErrNoCampaign], a
// [*MissingError] where recipients have no final outcome and no dead letter is in
// the Summary to say why, or what the broker says and waiting does not mend.
func (c *Client) Follow(ctx context.Context, campaign string) iter.Seq2[*Summary, error] {
	return func(yield func(*Summary, error) bool) {
		f, err := c.follow(ctx, campaign)
		if err != nil {
			yield(nil, err)
			return
		}
		defer f.stop()
		if !yield(f.summary, nil) {
			return
		}
		for ended := false; !ended; {
			if ended, err = f.step(ctx); err != nil {
				yield(f.summary, err)
				return
			}
			if !yield(f.summary, nil) {
				return
			}
		}
		if f.summary.State, err = f.state(ctx); err != nil {
			yield(f.summary, err)
			return
		}
		if missing := f.summary.Published - f.summary.Final(); missing > 0 && len(f.summary.Dead) == 0 {
			yield(f.summary, &MissingError{campaign, missing})
		}
	}
}

// A follower is one run of Follow.
type follower struct {
	*Client
	campaign string
	summary  *Summary
	journals subjects.Journals
	retried  retried
	seen     uint64 // sequence of the last entry

	look  time.Duration // until the next look at the queue
	empty int           // looks at the queue that were in vain, and nothing came in between

	entries chan jetstream.Msg
	failed  chan error
	cancel  context.CancelFunc
	reading sync.WaitGroup
}

func (c *Client) follow(ctx context.Context, campaign string) (*follower, error) {
	if err := checkName(campaign); err != nil {
		return nil, err
	}
	records, err := c.records(ctx)
	if err != nil {
		return nil, err
	}
	record, revision, err := records.get(ctx, campaign)
	if err != nil {
		return nil, err
	}
	if revision == 0 {
		if known, err := c.known(ctx, campaign); err != nil {
			return nil, err
		} else if !known {
			return nil, noCampaign(campaign)
		}
	}
	t, err := tail.Open(ctx, c.js, c.names.OutcomesStream(), c.names.CampaignOutcomes(campaign), 0)
	if err != nil {
		return nil, fmt.Errorf("follow campaign %s: %w", campaign, err)
	}
	f := &follower{
		Client:   c,
		campaign: campaign,
		summary: &Summary{
			Published: record.Recipients,
			Outcomes:  make(map[subjects.Status]int),
			Relays:    make(map[string]map[subjects.Status]int),
		},
		journals: make(subjects.Journals),
		retried:  make(retried),
		look:     firstLook,
		entries:  make(chan jetstream.Msg),
		failed:   make(chan error, 1),
	}
	ctx, f.cancel = context.WithCancel(ctx)
	f.reading.Go(func() { f.read(ctx, t) })
	return f, nil
}

// read hands on entries until ctx ends.
func (f *follower) read(ctx context.Context, t *tail.Tail) {
	defer t.Stop(ctx)
	for {
		m, err := t.Next(ctx)
		if err != nil {
			f.failed <- err
			return
		}
		select {
		case f.entries <- m:
		case <-ctx.Done():
			return
		}
	}
}

func (f *follower) stop() {
	f.cancel()
	f.reading.Wait()
}

// step takes in the next entry, or looks at the queue when none came for a
// while.
func (f *follower) step(ctx context.Context) (ended bool, err error) {
	timer := time.NewTimer(f.look)
	defer timer.Stop()
	select {
	case m := <-f.entries:
		f.look, f.empty = firstLook, 0
		return false, f.take(m)
	case <-timer.C:
		f.look = min(2*f.look, lastLook)
		return f.settled(ctx)
	case err := <-f.failed:
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		return false, fmt.Errorf("follow campaign %s: %w", f.campaign, err)
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

// state is the campaign's, which somebody may have changed meanwhile.
func (f *follower) state(ctx context.Context) (subjects.CampaignState, error) {
	records, err := f.records(ctx)
	if err != nil {
		return "", err
	}
	record, _, err := records.get(ctx, f.campaign)
	return record.State, err
}

func (f *follower) take(m jetstream.Msg) error {
	meta, err := m.Metadata()
	if err != nil {
		return fmt.Errorf("follow campaign %s: %w", f.campaign, err)
	}
	f.seen = meta.Sequence.Stream
	e, err := f.decode(m.Subject(), m.Data(), f.seen)
	if unreadable, ok := errors.AsType[*EntryError](err); ok {
		f.summary.Unreadable = append(f.summary.Unreadable, unreadable)
		return nil
	}
	f.journals.Fold(e.batch, e.Entry, func(_ string, before, after *subjects.Result) {
		f.summary.add(before, after)
		if relay, again := f.retried.fold(e.batch, before, after); again {
			f.summary.count(relay, subjects.Expired, -1)
		}
	})
	return nil
}

// settled tells whether nothing more will come.
func (f *follower) settled(ctx context.Context) (bool, error) {
	waiting, err := f.Waiting(ctx, f.campaign)
	if err != nil || waiting > 0 {
		f.empty = 0
		return false, passed(ctx, err)
	}
	// What was in the queue before is in the journals by now.
	last, err := f.lastEntry(ctx, f.names.CampaignOutcomes(f.campaign))
	if err != nil || f.seen < last {
		return false, passed(ctx, err)
	}
	if f.summary.Dead, err = f.unreadable(ctx, f.campaign); err != nil {
		return false, passed(ctx, err)
	}
	f.empty++
	return f.summary.Final() >= f.summary.Published || f.empty >= emptyLooks, nil
}

// passed is nil for what waiting may mend: whoever follows outlives a broker that
// is away for a moment.
func passed(ctx context.Context, err error) error {
	if err == nil || ctx.Err() == nil && passing(err) {
		return nil
	}
	return err
}
