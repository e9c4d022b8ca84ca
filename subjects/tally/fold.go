package tally

import (
	"container/list"
	"context"
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"bulkmail/subjects"
)

// keptRecipients is how many recipients of batches under way are kept in memory. A
// journal that makes room is read again when its next entry comes.
const keptRecipients = 500_000

// An entry is one of a journal, as it stands in the stream.
type entry struct {
	subject  string
	campaign string
	batch    string
	sequence uint64
	time     time.Time // when the broker stored it
	header   nats.Header
	data     []byte
}

// first tells whether it is known to be the first of its journal: it says itself
// what it was to follow. An entry that says nothing may be any.
func (e *entry) first() bool {
	return e.header.Get(jetstream.ExpectedLastSubjSeqHeader) == "0"
}

// claimed is how many different recipients the batch has, as a claim says; 0 if
// it says nothing.
func (e *entry) claimed() int {
	n, err := strconv.Atoi(e.header.Get(subjects.HeaderRecipients))
	if err != nil {
		return 0
	}
	return max(n, 0)
}

// A journal is that of one batch, folded.
type journal struct {
	subjects.State
	entries int
	claimed int                         // the most that a claim said
	moved   int                         // recipients that are in another batch now
	before  map[string]*subjects.Result // of a batch that was a dead letter: who expired in the one before
	again   int                         // recipients who were counted there
	place   *list.Element
	subject string
}

// published is how many recipients count in this batch.
func (j *journal) published() int {
	n := len(j.Results)
	if j.before == nil {
		n = max(n, j.claimed)
	}
	return n - j.moved - j.again
}

// A change is a recipient of whom an entry says something new. Before is nil if
// nothing was known, or was counted in the batch before.
type change struct {
	recipient     string
	before, after *subjects.Result
}

// fold takes in an entry, and tells each change.
func (j *journal) fold(e *entry, decoded subjects.Entry, changed func(change)) {
	j.entries++
	if decoded.Event == subjects.Claimed {
		j.claimed = max(j.claimed, e.claimed())
	}
	j.Fold(decoded, func(recipient string, before, after *subjects.Result) {
		if after.Status == moved {
			j.moved++
		}
		if before == nil {
			if before = j.before[recipient]; before != nil {
				j.again++
			}
		}
		if changed != nil {
			changed(change{recipient, before, after})
		}
	})
}

// journals are the journals of batches under way, as far as there is room.
type journals struct {
	of   map[string]*journal
	used list.List // *journal, the one that was used last at the front
	held int       // recipients
	room int       // for so many
	// read reads the entries of a journal before a sequence.
	read func(ctx context.Context, subject string, before uint64, each func(*entry)) error
}

// get returns a journal as it was before an entry.
func (j *journals) get(ctx context.Context, e *entry) (*journal, error) {
	if known := j.of[e.subject]; known != nil {
		j.used.MoveToFront(known.place)
		return known, nil
	}
	known, err := j.load(ctx, e)
	if err != nil {
		return nil, err
	}
	j.of[e.subject] = known
	known.place = j.used.PushFront(known)
	j.held += len(known.Results)
	return known, nil
}

// load reads a journal up to an entry.
func (j *journals) load(ctx context.Context, next *entry) (*journal, error) {
	known := &journal{subject: next.subject}
	type earlier struct {
		*entry
		decoded subjects.Entry
	}
	var entries []earlier
	begins := next.sequence
	if !next.first() {
		if err := j.replay(ctx, next.subject, next.sequence, func(e *entry, decoded subjects.Entry) {
			entries = append(entries, earlier{e, decoded})
		}); err != nil {
			return nil, err
		}
		if len(entries) > 0 {
			begins = entries[0].sequence
		}
	}
	if err := j.loadBefore(ctx, known, next, begins); err != nil {
		return nil, err
	}
	for _, e := range entries {
		known.fold(e.entry, e.decoded, nil)
	}
	return known, nil
}

// loadBefore finds out who expired in the batch whose dead letter became this one,
// before this one began.
func (j *journals) loadBefore(ctx context.Context, known *journal, next *entry, begins uint64) error {
	before := retriedBatch(next.batch)
	if before == "" {
		return nil
	}
	var old subjects.State
	err := j.replay(ctx, strings.TrimSuffix(next.subject, next.batch)+before, begins, func(_ *entry, decoded subjects.Entry) { old.Fold(decoded, nil) })
	for recipient, r := range old.Results {
		if r.Status != subjects.Expired {
			continue
		}
		if known.before == nil {
			known.before = make(map[string]*subjects.Result)
		}
		known.before[recipient] = r
	}
	return err
}

// replay hands on the entries of a journal that can be read.
func (j *journals) replay(ctx context.Context, subject string, before uint64, each func(*entry, subjects.Entry)) error {
	return j.read(ctx, subject, before, func(e *entry) {
		var decoded subjects.Entry
		if json.Unmarshal(e.data, &decoded) == nil {
			each(e, decoded)
		}
	})
}

// grown keeps to the room there is. A batch that is done is needed no more.
func (j *journals) grown(known *journal, by int) {
	j.held += by
	if known.Done {
		j.drop(known)
	}
	for j.held > j.room && j.used.Len() > 1 {
		j.drop(j.used.Back().Value.(*journal))
	}
}

func (j *journals) drop(known *journal) {
	j.used.Remove(known.place)
	delete(j.of, known.subject)
	j.held -= len(known.Results)
}

// retriedBatch is the batch whose dead letter became this one, "" if it was made of
// none.
func retriedBatch(batch string) string {
	i := strings.LastIndex(batch, "-r")
	if i < 0 || strings.Trim(batch[i+2:], "0123456789") != "" {
		return ""
	}
	return batch[:i]
}

// take takes in the next entry of the campaign, as far as it is not in the counts
// or the detail.
func (t *Tally) take(ctx context.Context, e *entry, at Place, counting, detailing bool, under *journals) error {
	if !counting && !detailing {
		return nil
	}
	var decoded subjects.Entry
	if err := json.Unmarshal(e.data, &decoded); err != nil {
		if c := &t.Counts; counting && len(c.Unreadable) < keptUnreadable {
			c.Unreadable = append(c.Unreadable, Unreadable{e.subject, e.sequence, err.Error()})
		}
		t.reached(at, e.time, counting, detailing)
		return nil
	}
	known, err := under.get(ctx, e)
	if err != nil {
		return err
	}
	entries, published, results := known.entries, known.published(), len(known.Results)
	known.fold(e, decoded, func(c change) {
		if counting {
			t.Counts.change(c, e.time)
		}
		if detailing {
			t.Detail.change(c, e.time)
		}
	})
	if counting {
		t.Counts.Published += known.published() - published
		if entries == 0 && known.before == nil {
			t.Counts.Batches++
		}
	}
	under.grown(known, len(known.Results)-results)
	t.reached(at, e.time, counting, detailing)
	return nil
}

func (t *Tally) reached(at Place, stored time.Time, counting, detailing bool) {
	if counting {
		c := &t.Counts
		c.Place = at
		if c.Began.IsZero() {
			c.Began = stored
		}
		c.Last = stored
	}
	if detailing {
		t.Detail.Place = at
	}
}

func (c *Counts) change(now change, at time.Time) {
	if now.before != nil {
		c.count(now.before.Status, -1)
	}
	c.count(now.after.Status, 1)
	c.Recent = minuted(c.Recent, recentMinutes, at, now.after.Status)
}

func (d *Detail) change(now change, at time.Time) {
	domain := domainOf(now.recipient)
	if now.before != nil {
		d.count(domain, now.before, -1)
	}
	d.count(domain, now.after, 1)
	d.History = minuted(d.History, historyMinutes, at, now.after.Status)
}

func (d *Detail) count(domain string, r *subjects.Result, n int) {
	d.Relays.count(rowKey{name: r.Relay}, "", r.Status, n)
	d.Domains.count(rowKey{name: domain}, "", r.Status, n)
	d.Replies.count(rowKey{code: r.Code, enhanced: r.Enhanced, text: common(r.Text)}, cut(r.Text), r.Status, n)
}
