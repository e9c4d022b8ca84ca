package tally

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"bulkmail/subjects"
	"bulkmail/subjects/tail"
)

// A Book holds the tallies of campaigns up to a place in the stream of outcomes.
// One goroutine at a time may use it.
type Book struct {
	names  subjects.Names
	js     jetstream.JetStream
	stream jetstream.Stream // of outcomes
	made   time.Time        // that stream
	first  time.Time        // when the broker stored the first entry it has; zero: none
	end    uint64           // sequence of its last entry when the book was opened
	store  store
	asked  time.Time // by the broker's clock
	only   string    // the one campaign that it is about; empty: all
	detail bool      // it is about details, too

	upTo  Checkpoint // of what was stored
	read  uint64     // all entries up to this one are in the tallies
	of    map[string]*open
	under journals // of batches under way
}

// An open tally is one that the book has before it.
type open struct {
	Tally
	stored, storedDetail uint64 // sequences in the stream of tallies; 0: it is not there
	counted, detailed    bool   // something is not stored
	touched              time.Time
}

// Open opens the book of one campaign, or of all where only is empty, at the place
// to which it was stored. What is stored is read when it is wanted.
func Open(ctx context.Context, js jetstream.JetStream, names subjects.Names, only string, detail bool) (*Book, error) {
	stream, err := js.Stream(ctx, names.OutcomesStream())
	if err != nil {
		return nil, fmt.Errorf("stream %s: %w", names.OutcomesStream(), err)
	}
	b := &Book{js: js, names: names, stream: stream, made: stream.CachedInfo().Created, only: only, detail: detail, of: make(map[string]*open)}
	b.under = journals{of: make(map[string]*journal), room: keptRecipients, read: b.journal}
	b.asked = stream.CachedInfo().TimeStamp
	b.first, b.end = stream.CachedInfo().State.FirstTime, stream.CachedInfo().State.LastSeq
	if b.store, err = openStore(ctx, js, names); err != nil {
		return nil, err
	}
	// First: what is stored of campaigns goes at least up to there.
	if b.upTo, err = b.store.checkpoint(ctx); err != nil {
		return nil, err
	}
	b.adopt(&b.upTo.Place)
	if b.upTo.Stream.Equal(b.made) {
		if b.read = b.upTo.Sequence; detail {
			b.read = min(b.read, b.upTo.Detail)
		}
	}
	return b, nil
}

// adopt knows a place again in a stream that was restored from a backup: the broker
// makes such a stream anew, and it has entries that are older than itself.
func (b *Book) adopt(p *Place) {
	restored := !b.first.IsZero() && b.first.Before(b.made)
	if restored && !p.Stream.IsZero() && !p.Stream.After(b.first) && p.Sequence <= b.end {
		p.Stream = b.made
	}
}

// Age is how long ago, when the book was opened, a teller stored that it counts.
func (b *Book) Age() time.Duration {
	if b.upTo.Teller == "" {
		return 1<<63 - 1
	}
	return b.asked.Sub(b.upTo.at)
}

// AsOf is when the stream held nothing that was not in what was stored.
func (b *Book) AsOf() time.Time { return b.upTo.AsOf }

// Tally is that of a campaign; nil if it has none. It is the book's.
func (b *Book) Tally(ctx context.Context, campaign string) (*Tally, error) {
	o, err := b.open(ctx, campaign)
	if err != nil || o.Counts.Sequence == 0 && o.Detail.Sequence == 0 {
		return nil, err
	}
	return &o.Tally, nil
}

// Campaigns are the names of all campaigns that have a tally, in no order.
func (b *Book) Campaigns(ctx context.Context) ([]string, error) {
	names, err := b.store.campaigns(ctx)
	if err != nil {
		return nil, err
	}
	known := make(map[string]bool, len(names))
	for _, name := range names {
		known[name] = true
	}
	for name := range b.of {
		if !known[name] {
			names = append(names, name)
		}
	}
	return names, nil
}

// Load reads what is stored of campaigns, several at a time.
func (b *Book) Load(ctx context.Context, campaigns []string) error {
	var missing []string
	for _, name := range campaigns {
		if b.of[name] == nil {
			missing = append(missing, name)
		}
	}
	loaded, err := b.store.loadAll(ctx, missing, b.detail)
	for i, o := range loaded {
		b.adopt(&o.Counts.Place)
		b.adopt(&o.Detail.Place)
		b.of[missing[i]] = o
	}
	return err
}

// open is the tally of a campaign.
func (b *Book) open(ctx context.Context, campaign string) (*open, error) {
	if o := b.of[campaign]; o != nil {
		return o, nil
	}
	o, err := b.store.load(ctx, campaign, b.detail)
	if err != nil {
		return nil, err
	}
	b.adopt(&o.Counts.Place)
	b.adopt(&o.Detail.Place)
	b.of[string([]byte(campaign))] = o
	return o, nil
}

// last is the sequence of the last entry that the book is about; 0: there is none.
func (b *Book) last(ctx context.Context) (uint64, error) {
	if b.only == "" {
		info, err := b.stream.Info(ctx)
		if err != nil {
			return 0, fmt.Errorf("read journals: %w", err)
		}
		return info.State.LastSeq, nil
	}
	last, err := b.stream.GetLastMsgForSubject(ctx, b.filter())
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read journals: %w", err)
	}
	return last.Sequence, nil
}

func (b *Book) filter() string { return b.names.CampaignOutcomes(cmp.Or(b.only, "*")) }

// patience is for how long an entry is waited for that the stream has: it may be
// too old by now, and gone.
const patience = 5 * time.Second

// fewEntries are read one by one.
const fewEntries = 20

// Read takes in what the stream holds now.
func (b *Book) Read(ctx context.Context) error {
	// A few are no reason for a consumer.
	if all, err := b.Catch(ctx, fewEntries); all || err != nil {
		return err
	}
	last, err := b.last(ctx)
	if err != nil || last <= b.read {
		return err
	}
	t, err := b.tail(ctx)
	if err != nil {
		return err
	}
	defer t.Stop(ctx)
	for t.After() < last {
		waiting, cancel := context.WithTimeout(ctx, patience)
		m, err := t.Next(waiting)
		cancel()
		if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read journals: %w", err)
		}
		if err := b.take(ctx, m); err != nil {
			return err
		}
	}
	return nil
}

func (b *Book) tail(ctx context.Context) (*tail.Tail, error) {
	t, err := tail.Open(ctx, b.js, b.names.OutcomesStream(), b.filter(), b.read)
	if err != nil {
		return nil, fmt.Errorf("read journals: %w", err)
	}
	return t, nil
}

// take takes in the next entry of the stream.
func (b *Book) take(ctx context.Context, m jetstream.Msg) error {
	meta, err := m.Metadata()
	if err != nil {
		return fmt.Errorf("read journals: %w", err)
	}
	return b.takeEntry(ctx, &entry{subject: m.Subject(), sequence: meta.Sequence.Stream, time: meta.Timestamp.UTC(), header: m.Headers(), data: m.Data()})
}

func (b *Book) takeEntry(ctx context.Context, e *entry) error {
	e.campaign, e.batch = b.names.Campaign(e.subject)
	o, err := b.open(ctx, e.campaign)
	if err != nil {
		return err
	}
	at := Place{b.made, e.sequence}
	counting, detailing := !o.Counts.has(at), b.detail && !o.Detail.has(at)
	if err := o.take(ctx, e, at, counting, detailing, &b.under); err != nil {
		return err
	}
	b.read = e.sequence
	o.counted, o.detailed = o.counted || counting, o.detailed || detailing
	o.touched = time.Now()
	return nil
}

// journal reads the entries of one journal before a sequence.
func (b *Book) journal(ctx context.Context, subject string, before uint64, each func(*entry)) error {
	_, batch := b.names.Campaign(subject)
	for next := uint64(1); next < before; {
		m, err := b.stream.GetMsg(ctx, next, jetstream.WithGetMsgSubject(subject))
		if errors.Is(err, jetstream.ErrMsgNotFound) || err == nil && m.Sequence >= before {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read journal %s: %w", subject, err)
		}
		each(&entry{subject: subject, batch: batch, sequence: m.Sequence, time: m.Time, header: m.Header, data: m.Data})
		next = m.Sequence + 1
	}
	return nil
}

// Catch takes in up to most entries that the stream holds now, one by one, which is
// fast where there are few. It tells whether these were all.
func (b *Book) Catch(ctx context.Context, most int) (all bool, err error) {
	for range most {
		m, err := b.stream.GetMsg(ctx, b.read+1, jetstream.WithGetMsgSubject(b.filter()))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return true, nil
		}
		if err != nil {
			return false, fmt.Errorf("read journals: %w", err)
		}
		if err := b.takeEntry(ctx, &entry{subject: m.Subject, sequence: m.Sequence, time: m.Time.UTC(), header: m.Header, data: m.Data}); err != nil {
			return false, err
		}
	}
	return false, nil
}
