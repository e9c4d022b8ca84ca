package campaign

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"bulkmail/subjects"
)

const (
	// turnOver is for how long a publication must have shown nothing until another
	// one may take its turn: it has died, or stands still.
	turnOver = 15 * time.Second
	// turnBeats is how often it shows in that time, in the campaign's record, that
	// it goes on.
	turnBeats = 5
	// turnLook is how often a publication that waits looks.
	turnLook = 200 * time.Millisecond
)

// errNotYet says that another publication has its turn.
var errNotYet = errors.New("another publication of this campaign is under way")

// A turn is the time in which one publication of a campaign has it to itself. Two
// that read what was published before, and then publish, each without the other,
// would put the same recipients in batches of different ids.
type turn struct {
	records  records
	campaign string
	owner    string

	stop    chan struct{}
	beating sync.WaitGroup
}

// takeTurn waits until no other publication of the campaign goes on. The context
// it returns ends when the turn is lost. said, if not nil, is told why it waits.
func (r records) takeTurn(ctx context.Context, campaign string, said func(error)) (context.Context, *turn, error) {
	t := &turn{records: r, campaign: campaign, owner: nuid.Next(), stop: make(chan struct{})}
	var seen subjects.CampaignTurn
	var since time.Time // when that was seen first
	look := time.NewTicker(turnLook)
	defer look.Stop()
	for {
		err := r.update(ctx, campaign, func(record *subjects.Campaign) error {
			if now := record.Publishing; now != nil {
				if *now != seen {
					seen, since = *now, time.Now()
				}
				if time.Since(since) < r.turnOver {
					return errNotYet
				}
			}
			record.Publishing = &subjects.CampaignTurn{Owner: t.owner}
			return nil
		})
		switch {
		case err == nil:
			ctx, lost := context.WithCancelCause(ctx)
			t.beating.Go(func() { t.beat(ctx, lost) })
			return ctx, t, nil
		case !errors.Is(err, errNotYet):
			return ctx, nil, err
		case said != nil:
			said(fmt.Errorf("%w: waiting for its end, or until it has shown no sign of life for %v", errNotYet, r.turnOver))
			said = nil
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return ctx, nil, ctx.Err()
		}
	}
}

// beat shows that the publication goes on, until its turn ends or is lost.
func (t *turn) beat(ctx context.Context, lost context.CancelCauseFunc) {
	tick := time.NewTicker(t.records.turnOver / turnBeats)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-t.stop:
			lost(nil)
			return
		}
		err := t.records.update(ctx, t.campaign, func(record *subjects.Campaign) error {
			if now := record.Publishing; now != nil && now.Owner != t.owner {
				return errNotYet
			} else if now == nil { // a release that knows no turns has written the record
				record.Publishing = &subjects.CampaignTurn{Owner: t.owner}
			}
			record.Publishing.Beat++
			return nil
		})
		if errors.Is(err, errNotYet) {
			lost(fmt.Errorf("this one stood still for %v: %w", t.records.turnOver, err))
		}
	}
}

// end ends the turn. A record of which nothing else is left goes with it.
func (t *turn) end(ctx context.Context) error {
	close(t.stop)
	t.beating.Wait()
	for {
		record, revision, err := t.records.get(ctx, t.campaign)
		if err != nil || revision == 0 || record.Publishing == nil || record.Publishing.Owner != t.owner {
			return err
		}
		if record.Message != "" || record.Batches > 0 || len(record.Changes) > 0 {
			return t.records.update(ctx, t.campaign, func(record *subjects.Campaign) error {
				if now := record.Publishing; now != nil && now.Owner == t.owner {
					record.Publishing = nil
				}
				return nil
			})
		}
		err = t.records.bucket.Delete(ctx, t.campaign, jetstream.LastRevision(revision))
		if !errors.Is(err, jetstream.ErrKeyExists) {
			return err
		}
	}
}
