package worker

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"bulkmail/subjects"
)

const (
	// pausedDelay is how long a batch of a paused campaign rests in the queue
	// before a worker looks at it again.
	pausedDelay = time.Second
	// pausedLooks is at how many of these a worker looks in a second at most:
	// a long queue that is paused must not keep it busy. So many a second come
	// back at least when the campaign is resumed.
	pausedLooks = 200
)

// campaigns knows the state of every campaign as the broker tells of it, and
// tells the attempts under way.
type campaigns struct {
	bucket jetstream.KeyValue
	log    *slog.Logger

	mu       sync.Mutex // guards what follows
	states   map[string]subjects.CampaignState
	lists    map[string]mailingList // what campaigns say that they are
	attempts map[*attempt]struct{}
	lastLook time.Time // at the last of the batches that rest
}

func newCampaigns(ctx context.Context, js jetstream.JetStream, bucket string, log *slog.Logger) (*campaigns, error) {
	kv, err := js.KeyValue(ctx, bucket)
	if err != nil {
		return nil, fmt.Errorf("bucket %s: %w", bucket, err)
	}
	return &campaigns{
		bucket:   kv,
		log:      log,
		states:   make(map[string]subjects.CampaignState),
		lists:    make(map[string]mailingList),
		attempts: make(map[*attempt]struct{}),
	}, nil
}

// watch follows the bucket until work ends. It returns when all states as they
// are now are known, or intake has ended and nobody needs them.
func (c *campaigns) watch(work, intake context.Context) (*sync.WaitGroup, error) {
	updates, err := c.bucket.WatchAll(work)
	if err != nil {
		return nil, fmt.Errorf("watch campaigns: %w", err)
	}
	known := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() {
		for first := known; ; {
			for update := range updates.Updates() {
				switch {
				case update != nil:
					c.learn(work, update)
				case first != nil: // the end of what was there
					close(first)
					first = nil
				}
			}
			// The watch ended by itself: states might be missed from now on.
			for {
				if !sleep(work, time.Second) {
					return
				}
				if updates, err = c.bucket.WatchAll(work); err == nil {
					break
				}
				c.log.WarnContext(work, "campaigns not watched, trying on", "error", err)
			}
		}
	})
	select {
	case <-known:
	case <-intake.Done():
	}
	return &watching, nil
}

func (c *campaigns) learn(ctx context.Context, update jetstream.KeyValueEntry) {
	campaign := subjects.Campaign{State: subjects.CampaignRunning}
	if update.Operation() == jetstream.KeyValuePut {
		if err := json.Unmarshal(update.Value(), &campaign); err != nil {
			c.log.ErrorContext(ctx, "campaign not readable, left as it was", "campaign", update.Key(), "error", err)
			return
		}
	}
	c.mu.Lock()
	changed := c.state(update.Key()) != campaign.State
	c.states[update.Key()] = campaign.State
	if list := (mailingList{campaign.List, campaign.Kind}); c.lists[update.Key()] != list {
		c.lists[update.Key()] = list
	}
	var stop []*attempt
	for a := range c.attempts {
		if a.campaign == update.Key() && campaign.State != subjects.CampaignRunning {
			stop = append(stop, a)
		}
	}
	c.mu.Unlock()
	for _, a := range stop {
		a.stop(time.Time{})
	}
	if changed {
		c.log.InfoContext(ctx, "campaign changed", "campaign", update.Key(), "state", campaign.State)
	}
}

// rest is how long the next batch of a paused campaign rests.
func (c *campaigns) rest(now time.Time) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	look := now.Add(pausedDelay)
	if next := c.lastLook.Add(time.Second / pausedLooks); next.After(look) {
		look = next
	}
	c.lastLook = look
	return look.Sub(now)
}

// state is what may be done with a campaign's batches. The caller holds mu.
func (c *campaigns) state(campaign string) subjects.CampaignState {
	if s := c.states[campaign]; s != "" {
		return s
	}
	return subjects.CampaignRunning
}

// of is what may be done with a campaign's batches now.
func (c *campaigns) of(campaign string) subjects.CampaignState {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state(campaign)
}

// A mailingList is what a campaign says of whom it is to: the list's name and the
// kind of mail, either of which may be empty.
type mailingList struct {
	name string
	kind subjects.CampaignKind
}

// list is what a campaign says of whom it is to.
func (c *campaigns) list(campaign string) mailingList {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lists[campaign]
}

// begin makes an attempt one that is stopped when its campaign no longer runs.
func (c *campaigns) begin(a *attempt) {
	c.mu.Lock()
	c.attempts[a] = struct{}{}
	state := c.state(a.campaign)
	c.mu.Unlock()
	if state != subjects.CampaignRunning {
		a.stop(time.Time{})
	}
}

func (c *campaigns) end(a *attempt) {
	c.mu.Lock()
	delete(c.attempts, a)
	c.mu.Unlock()
}
