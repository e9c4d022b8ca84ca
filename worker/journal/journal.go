// Package journal keeps what is known about each batch: who holds it, and what
// became of every recipient. One subject a batch, one [subjects.Entry] a
// message; what users consume and what workers recover from are the same
// entries.
//
// The way of one attempt:
//
//  1. [Journal.Read] folds what earlier attempts left into a [State].
//  2. [Journal.Claim] appends a claim that must follow the entry which Read saw
//     last, unless the one before holds the batch still ([HeldError]). Refused:
//     somebody else was faster ([ErrFenced]).
//  3. [Hold.Record] takes results and returns at once; appends of one batch
//     coalesce, each naming the sequence of the one before. A worker that lost
//     its hold finds out at its next append, and [Hold.Lost] is closed.
//  4. [Hold.Close] writes what is left and, when all is settled, the done. Else
//     it says that the hold is over.
//
// # Who holds a batch
//
// The same batch may be on the queue twice: published again, or handed out by a
// consumer that was made anew. So the journal itself tells whether a holder is
// alive. A claim names its ack wait and its consumer; a hold is over when it says
// so, or when its last entry is older than its ack wait by the broker's clock. A
// holder with nothing to record for a third of that writes an empty entry. Only
// one thing proves earlier that a hold is over: the same message of the same
// consumer with a higher delivery count, for the broker delivers it again only
// after a nak or an ack wait without a sign of life.
//
// # What it costs
//
// Measured with one million recipients in 10 domains, 100 an envelope, all
// accepted, on nats-server 2.15.2 with one replica; addresses of 27 octets.
// Disk is the folder of the stream; memory is the whole broker after the run,
// 18 MB before it (page cache not counted). testdata/bench/journal prints this:
//
//	recipients a batch   entries   disk     broker memory   with s2: disk   memory
//	1,000                  4,206    31 MB   108 MB          11 MB           140 MB
//	100                   20,014    36 MB   121 MB           9 MB           135 MB
//	10                   200,021    94 MB   199 MB          21 MB           216 MB (peak 245)
//
// So a billion recipients in batches of 1,000 are about 31 GB, or 11 GB with
// compression, times the replicas, in a million subjects; the broker keeps
// something below a kilobyte of memory for each subject. What to turn:
//
//   - Batches of 1,000, which is what publish makes. Small batches cost a claim
//     and a done each.
//   - BULKMAIL_OUTCOMES_MAX_AGE: the journal is also what keeps a batch that is
//     published again from being sent again, so keep it longer than anybody
//     might do that; 30 days unless set.
//   - Compression: make the stream before the first worker does, with
//     nats stream add BULKMAIL_OUTCOMES --subjects 'bulkmail.outcomes.*.*'
//     --storage file --compression s2 --max-age 30d --allow-direct --defaults.
//     Worth it from some tens of millions of recipients a month.
//   - BULKMAIL_REPLICAS=3 in a cluster: three times the disk, and no outcome is
//     lost with one server.
package journal

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"bulkmail/subjects"
)

// ErrFenced says that somebody else has written to the batch's journal since
// it was read: the batch is theirs.
var ErrFenced = errors.New("the batch is held by another worker")

// A HeldError says that somebody holds the batch and was alive lately.
type HeldError struct {
	For time.Duration // until the hold is over, if nothing more is heard of its holder
}

func (e *HeldError) Error() string {
	return fmt.Sprintf("another delivery of the batch is in hand, for %v at least", e.For.Round(time.Millisecond))
}

// ErrSlow says that the broker takes long over an append: it may be away.
var ErrSlow = errors.New("the broker takes long over an append")

// ErrAway says that a stream does not answer at all.
var ErrAway = errors.New("the stream is missing or has no leader; a worker makes what is missing when it starts")

// A BrokerError is what keeps a journal from being read although nothing is
// wrong with it.
type BrokerError struct{ Err error }

func (e *BrokerError) Error() string { return e.Err.Error() }

// Unwrap returns what the broker said.
func (e *BrokerError) Unwrap() error { return e.Err }

// Headers of a journal entry, for the workers' own use.
const (
	headerToken    = "Bulkmail-Token"    // unique, so that a writer knows its own entry again
	headerDelivery = "Bulkmail-Delivery" // of a claim: which delivery of the batch it goes by
	headerConsumer = "Bulkmail-Consumer" // of a claim: the consumer of that delivery
	headerAckWait  = "Bulkmail-Ack-Wait" // of a claim: for how long an entry shows that its writer is alive
	headerContent  = "Bulkmail-Content"  // of a claim: what the batch says to all its recipients
	headerReleased = "Bulkmail-Released" // of the last entry of a hold that ended before the batch was done
	headerKey      = "Bulkmail-Key"      // of a claim: [Stamp.Key]
	headerDate     = "Bulkmail-Date"     // of a claim: [Stamp.Date]
)

// slowAppend is when an append takes so long that the broker may be away: what is
// sent from now on might never be recorded.
const slowAppend = 250 * time.Millisecond

// A Journal reads and writes the journals of all batches. It is safe for
// concurrent use.
type Journal struct {
	js     jetstream.JetStream
	stream jetstream.Stream
	names  subjects.Names
	worker string

	tryFor time.Duration // bounds one try of an append; only tests want another bound

	// Appended, if not nil, is told of every entry that was written, and how
	// long that took with all tries. It must not wait, nor keep the entry. Set it before the first
	// claim.
	Appended func(subjects.Entry, time.Duration)
}

// New returns the journal under names; worker is the name in its entries.
func New(ctx context.Context, js jetstream.JetStream, names subjects.Names, worker string) (*Journal, error) {
	stream, err := js.Stream(ctx, names.OutcomesStream())
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	return &Journal{js: js, stream: stream, names: names, worker: worker, tryFor: 5 * time.Second}, nil
}

// Kept is how long entries are kept; 0: for ever.
func (j *Journal) Kept() time.Duration { return j.stream.CachedInfo().Config.MaxAge }

// Delivery is one delivery of a batch by the broker.
type Delivery struct {
	Sequence uint64 // of the batch in its stream
	Count    uint64 // 1 at the first delivery

	Consumer string        // that delivered it. Defaults to [subjects.Consumer]
	AckWait  time.Duration // of that consumer. Defaults to 30s

	Recipients int    // different ones that the batch has; 0: not known
	Content    string // tells what the batch says to all its recipients; see [State.Content]
}

func (d Delivery) withDefaults() Delivery {
	d.Consumer = cmp.Or(d.Consumer, subjects.Consumer)
	d.AckWait = cmp.Or(d.AckWait, 30*time.Second)
	return d
}

// same tells whether both are deliveries of one message by one consumer.
func (d Delivery) same(other Delivery) bool {
	return d.Sequence == other.Sequence && d.Consumer == other.Consumer
}

// String is the sequence and the count.
func (d Delivery) String() string {
	return strconv.FormatUint(d.Sequence, 10) + "." + strconv.FormatUint(d.Count, 10)
}

// header is how a claim says which delivery it goes by.
func (d Delivery) header() nats.Header {
	return nats.Header{headerDelivery: {d.String()}, headerConsumer: {d.Consumer}, headerAckWait: {d.AckWait.String()}, headerContent: {d.Content}}
}

// parseDelivery reads the header of a claim; whatever else it says means none.
func parseDelivery(h nats.Header) Delivery {
	var d Delivery
	sequence, count, _ := strings.Cut(h.Get(headerDelivery), ".")
	n, err := strconv.ParseUint(sequence, 10, 64)
	c, err2 := strconv.ParseUint(count, 10, 64)
	if err == nil && err2 == nil {
		d.Sequence, d.Count = n, c
	}
	d.Consumer, d.Content = h.Get(headerConsumer), h.Get(headerContent)
	if wait, err := time.ParseDuration(h.Get(headerAckWait)); err == nil && wait > 0 {
		d.AckWait = wait
	}
	return d.withDefaults()
}

// Read folds the journal of a batch. A batch without a journal has the zero
// State.
func (j *Journal) Read(ctx context.Context, campaign, batch string) (*State, error) {
	s := &State{subject: j.names.Outcomes(campaign, batch)}
	last, err := j.stream.GetLastMsgForSubject(ctx, s.subject)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return s, nil
	}
	if err != nil {
		return nil, &BrokerError{fmt.Errorf("read journal %s: %w", s.subject, j.named(err))}
	}
	for next := uint64(1); ; next = s.last + 1 {
		m := last
		if next < last.Sequence {
			if m, err = j.stream.GetMsg(ctx, next, jetstream.WithGetMsgSubject(s.subject)); err != nil {
				return nil, &BrokerError{fmt.Errorf("read journal %s: %w", s.subject, j.named(err))}
			}
		}
		var e subjects.Entry
		if err := json.Unmarshal(m.Data, &e); err != nil {
			return nil, fmt.Errorf("read journal %s: entry %d: %w", s.subject, m.Sequence, err)
		}
		e.Time = m.Time // the clocks of workers differ; the broker's is the same for all
		s.fold(e, m)
		if m.Sequence >= last.Sequence {
			return s, nil
		}
	}
}

// Subject is that of the journal which an entry is of. The error is
// [jetstream.ErrMsgNotFound] if the entry is not kept any more.
func (j *Journal) Subject(ctx context.Context, sequence uint64) (string, error) {
	m, err := j.stream.GetMsg(ctx, sequence)
	if err != nil {
		return "", err
	}
	return m.Subject, nil
}

// Claim takes hold of the batch for one attempt. The error is a [*HeldError] if s
// shows, or turns out to be older than an entry which shows, that another
// delivery of the batch is in hand. It is [ErrFenced] if it is this very message
// that is in hand: a broker that was killed may have forgotten deliveries, and
// makes them once more while their holder is alive and well. trouble, if not nil,
// is told why appends begin to fail or to take long ([ErrSlow]), and nil when
// they work again; nothing new should be sent in between, since it could not be
// recorded.
func (j *Journal) Claim(ctx context.Context, s *State, d Delivery, trouble func(error)) (*Hold, error) {
	d = d.withDefaults()
	if err := j.free(ctx, s, d); err != nil {
		return nil, err
	}
	h := &Hold{
		journal: j,
		subject: s.subject,
		attempt: s.Attempts + 1,
		ackWait: d.AckWait,
		start:   time.Now(),
		last:    s.last,
		lost:    make(chan struct{}),
		wake:    make(chan struct{}, 1),
		closing: make(chan struct{}),
		trouble: trouble,
	}
	h.ctx, h.cancel = context.WithCancel(context.WithoutCancel(ctx))
	header := d.header()
	if d.Recipients > 0 {
		header.Set(subjects.HeaderRecipients, strconv.Itoa(d.Recipients))
	}
	s.Stamp.write(header)
	err := h.append(ctx, h.entry(subjects.Claimed, nil), header)
	if err == nil {
		h.claim = h.last
		h.writing.Go(h.write)
		return h, nil
	}
	h.cancel()
	if errors.Is(err, ErrFenced) {
		return nil, j.fencedBy(ctx, s, d)
	}
	return nil, err
}

// free tells whether nobody holds the batch, as far as s shows.
func (j *Journal) free(ctx context.Context, s *State, d Delivery) error {
	same := s.holder.same(d)
	if s.New() || s.Done || s.released || s.holder.Sequence == 0 || same && d.Count > s.holder.Count {
		return nil
	}
	// Only the broker can tell how long ago it stored the last entry.
	info, err := j.stream.Info(ctx)
	if err != nil {
		return fmt.Errorf("journal %s: %w", s.subject, j.named(err))
	}
	switch left := s.holder.AckWait - info.TimeStamp.Sub(s.written); {
	case left <= 0:
		return nil
	case same:
		return ErrFenced
	default:
		return &HeldError{left}
	}
}

// fencedBy says why a claim was refused that seemed to be free.
func (j *Journal) fencedBy(ctx context.Context, s *State, d Delivery) error {
	campaign, batch := j.names.Campaign(s.subject)
	now, err := j.Read(ctx, campaign, batch)
	if err != nil {
		return ErrFenced
	}
	if err := j.free(ctx, now, d); err != nil || now.holder.same(d) {
		return cmp.Or(err, ErrFenced)
	}
	return &HeldError{} // it was, and is over again
}

// append writes one entry behind the last one seen, and tries until it is
// written, refused, or ctx ends.
func (h *Hold) append(ctx context.Context, e subjects.Entry, header nats.Header) error {
	began := time.Now()
	h.buf = e.AppendJSON(h.buf[:0])
	msg := &nats.Msg{Subject: h.subject, Data: h.buf, Header: nats.Header{headerToken: {nuid.Next()}}}
	maps.Copy(msg.Header, header)
	if h.trouble != nil {
		h.await(true)
		timer := time.AfterFunc(slowAppend, func() { h.tell(ErrSlow) })
		defer timer.Stop()
		if !h.journal.js.Conn().IsConnected() {
			h.tell(nats.ErrDisconnected)
		}
	}
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, 2*time.Second) {
		sequence, err := h.try(ctx, msg)
		if err == nil {
			h.last = sequence
			h.alive.Store(int64(began.Sub(h.start))) // an earlier try may be what was stored
			h.await(false)
			h.tell(nil)
			if told := h.journal.Appended; told != nil {
				told(e, time.Since(began))
			}
			return nil
		}
		if errors.Is(err, ErrFenced) || ctx.Err() != nil {
			return err
		}
		h.tell(h.journal.named(err))
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return fmt.Errorf("journal %s: %w", h.subject, err)
		}
	}
}

// await notes whether an append is under way.
func (h *Hold) await(on bool) {
	h.telling.Lock()
	h.awaiting = on
	h.telling.Unlock()
}

// tell tells of trouble while an append is under way, and of its end. What is
// slow at first may turn out to be worse.
func (h *Hold) tell(trouble error) {
	h.telling.Lock()
	defer h.telling.Unlock()
	news := (trouble != nil) != (h.troubled != nil) || errors.Is(h.troubled, ErrSlow) && !errors.Is(trouble, ErrSlow)
	if h.trouble == nil || !news || trouble != nil && !h.awaiting {
		return
	}
	h.troubled = trouble
	h.trouble(trouble)
}

// named says of a stream that does not answer what that means.
func (j *Journal) named(err error) error {
	if errors.Is(err, nats.ErrNoResponders) || errors.Is(err, jetstream.ErrNoStreamResponse) {
		return fmt.Errorf("%s: %w", j.names.OutcomesStream(), ErrAway)
	}
	return err
}

func (h *Hold) try(ctx context.Context, msg *nats.Msg) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, h.journal.tryFor)
	defer cancel()
	ack, err := h.journal.js.PublishMsg(ctx, msg, jetstream.WithExpectLastSequencePerSubject(h.last))
	if err == nil {
		return ack.Sequence, nil
	}
	if !refused(err) {
		return 0, err
	}
	// An earlier try may have been written although its answer never came.
	last, getErr := h.journal.stream.GetLastMsgForSubject(ctx, h.subject)
	if getErr != nil && !errors.Is(getErr, jetstream.ErrMsgNotFound) {
		return 0, getErr
	}
	if getErr == nil && last.Header.Get(headerToken) == msg.Header.Get(headerToken) {
		return last.Sequence, nil
	}
	return 0, ErrFenced
}

// refused tells whether the broker refused an append because it does not
// follow the last entry. A replicated stream has a code of its own for that.
func refused(err error) bool {
	const wrongLastSequence, wrongLastSequenceReplicated = 10071, 10164
	api, ok := errors.AsType[*jetstream.APIError](err)
	return ok && (api.ErrorCode == wrongLastSequence || api.ErrorCode == wrongLastSequenceReplicated)
}
