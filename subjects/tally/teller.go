package tally

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"bulkmail/subjects"
)

const (
	// beat is how often what was counted is stored, and that it was.
	beat = 500 * time.Millisecond
	// detailBeat is the same of what is told beside the counts, which is larger.
	detailBeat = 10 * time.Second
	// silence is after how long without a beat somebody else counts.
	silence = 3 * beat
	// storeWithin bounds what is stored at one beat.
	storeWithin = 5 * time.Second
	// endWithin bounds what is stored at the end.
	endWithin = time.Second
	// again is after how long a teller that met trouble tries on.
	again = time.Second
	// idleFor is for how long a tally is kept before a teller with nothing new in it.
	idleFor = 10 * time.Minute
)

// A Teller keeps the book of all campaigns, as long as no other worker does. One
// worker at a time is the teller: whoever stores a checkpoint over the one that it
// saw last. That saves work, and is all: tallies are the same whoever counts, and
// none is stored over a newer one.
type Teller struct {
	js     jetstream.JetStream
	names  subjects.Names
	worker string
	log    *slog.Logger
}

// NewTeller returns a teller that is called as the worker is.
func NewTeller(js jetstream.JetStream, names subjects.Names, worker string, log *slog.Logger) *Teller {
	return &Teller{js, names, worker, log}
}

// Run counts whenever it is this worker's turn, until ctx ends.
func (t *Teller) Run(ctx context.Context) {
	said := false
	for ctx.Err() == nil {
		err := t.await(ctx)
		if err == nil {
			err = t.tell(ctx)
		}
		if ctx.Err() != nil {
			return
		}
		if trouble := err != nil && !errors.Is(err, ErrOvertaken); trouble && !said {
			t.log.WarnContext(ctx, "outcomes not counted, trying on", "error", err)
			said = true
		} else if !trouble {
			said = false
		}
		sleep(ctx, again)
	}
}

// await waits until nobody else counts.
func (t *Teller) await(ctx context.Context) error {
	var seen uint64
	since := time.Now()
	for {
		s, err := openStore(ctx, t.js, t.names)
		if err != nil {
			return err
		}
		now, err := s.checkpoint(ctx)
		switch {
		case err != nil:
			return err
		case now.stored == 0, now.Teller == "":
			return nil
		case now.stored != seen:
			seen, since = now.stored, time.Now()
		case time.Since(since) >= silence:
			return nil
		}
		if !sleep(ctx, beat/2) {
			return ctx.Err()
		}
	}
}

// tell counts until somebody else does, or ctx ends.
func (t *Teller) tell(ctx context.Context) error {
	b, err := Open(ctx, t.js, t.names, "", true)
	if err != nil {
		return err
	}
	k := &keeping{Book: b, worker: t.worker, detailed: time.Now()}
	if err := k.store(ctx, t.worker, false); err != nil {
		return err
	}
	t.log.DebugContext(ctx, "counting outcomes from", "sequence", b.read)
	entries, err := b.tail(ctx)
	if err != nil {
		return err
	}
	defer entries.Stop(ctx)
	for next := time.Now().Add(beat); ; {
		waiting, cancel := context.WithDeadline(ctx, next)
		m, err := entries.Next(waiting)
		cancel()
		switch {
		case err == nil:
			k.heard = true
			err = b.take(ctx, m)
		case ctx.Err() != nil:
			return k.end(ctx)
		case errors.Is(err, context.DeadlineExceeded):
			err = nil
		}
		if err == nil && !time.Now().Before(next) {
			next = time.Now().Add(beat)
			err = k.beat(ctx)
		}
		if err != nil {
			return err
		}
	}
}

// keeping is one turn of a teller.
type keeping struct {
	*Book
	worker   string
	goal     uint64 // the last entry that the stream had at goalAt
	goalAt   time.Time
	heard    bool // an entry came since the last beat
	detailed time.Time
}

// beat stores what was counted.
func (k *keeping) beat(ctx context.Context) error {
	if !k.goalAt.IsZero() && (k.read >= k.goal || !k.heard) { // what did not come is gone
		k.upTo.AsOf = k.goalAt
	}
	info, err := k.stream.Info(ctx)
	if err != nil {
		return err
	}
	// The stream may be another one, made anew.
	if !info.Created.Equal(k.made) {
		return ErrOvertaken
	}
	k.goal, k.goalAt = info.State.LastSeq, time.Now().UTC().Truncate(time.Millisecond)
	if k.read >= k.goal {
		k.upTo.AsOf = k.goalAt
	}
	k.heard = false
	withDetail := time.Since(k.detailed) >= detailBeat
	if withDetail {
		k.detailed = time.Now()
		k.forget()
	}
	return k.store(ctx, k.worker, withDetail)
}

// end leaves the book to whoever wants it.
func (k *keeping) end(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endWithin)
	defer cancel()
	return k.store(ctx, "", true)
}

// forget puts tallies away in which nothing is new.
func (k *keeping) forget() {
	for name, o := range k.of {
		if !o.counted && !o.detailed && time.Since(o.touched) > idleFor {
			delete(k.of, name)
		}
	}
}

// store stores all that is new, and then the checkpoint.
func (k *keeping) store(ctx context.Context, teller string, withDetail bool) error {
	ctx, cancel := context.WithTimeout(ctx, storeWithin)
	defer cancel()
	var putting []stored
	put := func(subject string, value any, over *uint64, changed *bool) error {
		if !*changed {
			return nil
		}
		future, err := k.Book.store.put(subject, value, *over)
		putting = append(putting, stored{future, over, changed})
		return err
	}
	for name, o := range k.of {
		if err := put(k.names.Tally(name), &o.Counts, &o.stored, &o.counted); err != nil {
			return err
		}
		if !withDetail {
			continue
		}
		if err := put(k.names.TallyDetail(name), &o.Detail, &o.storedDetail, &o.detailed); err != nil {
			return err
		}
	}
	for _, one := range putting {
		sequence, err := await(ctx, one.future)
		if err != nil {
			return err
		}
		*one.over, *one.changed = sequence, false
	}
	if k.upTo.Place = (Place{k.made, k.read}); withDetail {
		k.upTo.Detail = k.read
	}
	k.upTo.Teller = teller
	future, err := k.Book.store.put(k.names.Tally(subjects.AllCampaigns), &k.upTo, k.upTo.stored)
	if err == nil {
		k.upTo.stored, err = await(ctx, future)
	}
	return err
}

// stored is one value that is being stored.
type stored struct {
	future  jetstream.PubAckFuture
	over    *uint64
	changed *bool
}

// sleep waits for d; it reports false if ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
