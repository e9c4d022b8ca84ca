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
	js     jetstream.JetStream
	names  subjects.Names
	stream jetstream.Stream
	only   string // the one campaign that it is about; empty: all

	made  time.Time // the stream
	read  uint64    // all entries up to this one are in the tallies
	of    map[string]*Tally
	under journals // of batches under way
}

// Open opens the book of one campaign, or of all where only is empty, from the
// beginning of the stream.
func Open(ctx context.Context, js jetstream.JetStream, names subjects.Names, only string) (*Book, error) {
	stream, err := js.Stream(ctx, names.OutcomesStream())
	if err != nil {
		return nil, fmt.Errorf("stream %s: %w", names.OutcomesStream(), err)
	}
	b := &Book{js: js, names: names, stream: stream, only: only, made: stream.CachedInfo().Created, of: make(map[string]*Tally)}
	b.under = journals{of: make(map[string]*journal), read: b.journal}
	return b, nil
}

// Tallies are those of all campaigns that have one, by name. They are the book's.
func (b *Book) Tallies() map[string]*Tally { return b.of }

// Read takes in what the stream holds now.
func (b *Book) Read(ctx context.Context) error {
	filter := b.names.CampaignOutcomes(cmp.Or(b.only, "*"))
	last, err := b.stream.GetLastMsgForSubject(ctx, filter)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read journals: %w", err)
	}
	if last.Sequence <= b.read {
		return nil
	}
	t, err := tail.Open(ctx, b.js, b.names.OutcomesStream(), filter, b.read)
	if err != nil {
		return fmt.Errorf("read journals: %w", err)
	}
	defer t.Stop(ctx)
	for t.After() < last.Sequence { // the last one may be too old by now, and gone
		m, err := t.Next(ctx)
		if err != nil {
			return fmt.Errorf("read journals: %w", err)
		}
		if err := b.Take(ctx, m); err != nil {
			return err
		}
	}
	return nil
}

// Take takes in the next entry of the stream.
func (b *Book) Take(ctx context.Context, m jetstream.Msg) error {
	meta, err := m.Metadata()
	if err != nil {
		return fmt.Errorf("read journals: %w", err)
	}
	e := &entry{subject: m.Subject(), sequence: meta.Sequence.Stream, time: meta.Timestamp.UTC(), header: m.Headers(), data: m.Data()}
	e.campaign, e.batch = b.names.Campaign(e.subject)
	t := b.of[e.campaign]
	if t == nil {
		t = new(Tally)
		b.of[string([]byte(e.campaign))] = t
	}
	if err := t.take(ctx, e, b.made, &b.under); err != nil {
		return err
	}
	b.read = e.sequence
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
