package campaign

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"time"
	"unicode/utf8"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"bulkmail/envelope"
	"bulkmail/envelope/keys"
	"bulkmail/subjects"
)

// DefaultBatchSize is how many recipients a batch has at most, unless a
// [Publication] says otherwise.
const DefaultBatchSize = 1000

// A Publication is what [Client.Publish] puts on the queue.
type Publication struct {
	Campaign string // 1 to 64 letters, digits, - and _
	From     string // envelope sender; empty is the null sender
	// Message is header and body, with any line ends. What [CheckMessage] finds to
	// be an error is refused, what it notes is put right in what is sent; which
	// message a campaign has is known by the message as given.
	Message string

	// Letters has every recipient get a letter of its own: Message is a template
	// ([CheckLetters]), which stays as it is, and workers merge it with the name
	// and the data of each recipient.
	Letters bool
	// ListID is what the campaign's list is called, in List-Id and for unsubscribes,
	// and Kind whether one can unsubscribe from it; they stand in the campaign's
	// record. Empty: as the record has them, which has no list and bulk mail at first.
	ListID string
	Kind   subjects.CampaignKind

	// List yields the recipients; [ReadList] reads them from a file. It is read
	// as a stream, once. An error ends the publication.
	List iter.Seq2[Recipient, error]

	// Key makes the Message-ID of a message to many that has none, as workers with
	// this key would. Nil: it is made of the campaign and the message alone.
	Key *keys.Key

	BatchSize int  // recipients a batch at most; 0: DefaultBatchSize
	Inline    bool // the message goes into every batch, not into the store; it must be UTF-8

	// Progress is told, if not nil, after each batch that was stored.
	Progress func(Receipt)
}

// A Receipt is what one run of [Client.Publish] has published.
type Receipt struct {
	Campaign   string `json:"campaign"`
	Batches    int    `json:"batches"`
	Recipients int    `json:"recipients"`
	Repeated   int    `json:"repeated"` // left out: in the list twice, or published before

	// Unusable are lines of the list without an address that can be sent to. They
	// were published, and end as rejected; the first 10,000.
	Unusable []Unusable `json:"unusable,omitempty"`
}

// check finds what would be wrong with every batch, as an [*envelope.FieldError].
func (p *Publication) check() error {
	if err := checkName(p.Campaign); err != nil {
		return err
	}
	if p.From != "" {
		if _, err := envelope.ParseAddress(p.From); err != nil {
			return &envelope.FieldError{Field: "from", Reason: err.Error()}
		}
	}
	look := CheckMessage
	if p.Letters {
		look = CheckLetters
	}
	checks, err := look(p.Message)
	if err == nil {
		err = Refused(checks)
	}
	if err != nil {
		return err
	}
	if p.Inline && !utf8.ValidString(p.Message) {
		return &envelope.FieldError{Field: "message", Reason: "it is not UTF-8, which a batch must be: have it stored"}
	}
	if p.BatchSize < 0 {
		return &envelope.FieldError{Field: "batch size", Reason: fmt.Sprintf("%d: use 1 or more", p.BatchSize)}
	}
	if p.List == nil {
		return &envelope.FieldError{Field: "list", Reason: "missing"}
	}
	return nil
}

// Publish puts a list of recipients and a message on the queue. Addresses that
// cannot be sent to are published too, so that they get an outcome like everybody
// else. Batches are of one domain as far as possible; a list is never held whole.
//
// It can be repeated: who was published in this campaign before is left out, so a
// run that broke off, or a list with some more addresses, sends nothing twice. A
// campaign has one message and one sender from its first batch on, and is
// published by one run at a time: a second one waits. Nothing of a publication without a batch stays on the broker.
//
// The Receipt tells what was published also beside an error.
func (c *Client) Publish(ctx context.Context, p Publication) (Receipt, error) {
	r := &publishing{Client: c, Publication: p, digest: Digest(p.Message), known: newMailboxSet(), receipt: Receipt{Campaign: p.Campaign}}
	if err := p.check(); err != nil {
		return r.receipt, err
	}
	if r.BatchSize == 0 {
		r.BatchSize = DefaultBatchSize
	}
	var err error
	if r.records, err = c.records(ctx); err != nil {
		return r.receipt, err
	}
	ctx, turn, err := r.records.takeTurn(ctx, r.Campaign, c.o.Trouble)
	if err != nil {
		return r.receipt, err
	}
	receipt, err := r.run(ctx)
	if lost := context.Cause(ctx); errors.Is(lost, errNotYet) {
		err = lost
	}
	return receipt, errors.Join(err, turn.end(context.WithoutCancel(ctx)))
}

// run publishes, while no other publication of the campaign does.
func (r *publishing) run(ctx context.Context) (Receipt, error) {
	if err := r.begin(ctx); err != nil {
		return r.receipt, err
	}
	err := r.publishList(ctx)
	if r.receipt.Batches == 0 && (err != nil || r.receipt.Repeated == 0) {
		if err == nil {
			err = ErrEmptyList
		}
		return r.receipt, err
	}
	// What was published counts also when the rest could not be.
	return r.receipt, errors.Join(err, r.end(context.WithoutCancel(ctx), err == nil))
}

// publishing is one run of Publish.
type publishing struct {
	*Client
	Publication
	records records
	digest  string // of the message as given: the campaign's
	date    time.Time
	message string      // as it is sent
	ref     string      // its name in the store
	known   *mailboxSet // published in this campaign
	begun   bool        // something of the campaign was there before this run
	bound   bool        // this run's message and sender are the campaign's
	receipt Receipt
}

// begin finds out who was published in the campaign before.
func (r *publishing) begin(ctx context.Context) error {
	record, _, err := r.records.get(ctx, r.Campaign)
	if err != nil {
		return err
	}
	if err := r.readPublished(ctx); err != nil {
		return err
	}
	if err := r.fits(&record); err != nil {
		return err
	}
	return r.finish(&record)
}

// finish makes the message as it is sent. Its Date, if it has none itself, is that
// of the campaign's first publication, so that a repetition sends the same.
func (r *publishing) finish(record *subjects.Campaign) (err error) {
	date := r.date
	if record.Message == r.digest && !record.Date.IsZero() {
		date = record.Date
	}
	if date.IsZero() {
		date = time.Now().UTC().Truncate(time.Second)
	}
	if r.message != "" && r.date.Equal(date) {
		return nil
	}
	r.date = date
	if r.Letters {
		r.message, r.ref = r.Message, r.digest
		return nil
	}
	r.message, err = r.finished(date)
	r.ref = Digest(r.message)
	return err
}

// fits tells whether the message and the sender are the campaign's. A record of a
// publication of which no batch was stored binds nobody.
func (r *publishing) fits(record *subjects.Campaign) error {
	other := record.Message != "" && (r.begun || record.Batches > 0)
	switch {
	case record.State == subjects.CampaignCancelled:
		return &CancelledError{r.Campaign}
	case other && record.Message != r.digest:
		return &MessageChangedError{r.Campaign}
	case other && record.From != r.From:
		return &SenderChangedError{r.Campaign, record.From}
	}
	return nil
}

// readPublished reads the batches of the campaign that wait in the queue, and then
// its journals: a batch that is settled in between is met in its journal.
func (r *publishing) readPublished(ctx context.Context) error {
	stream, err := r.js.Stream(ctx, r.names.BatchesStream())
	if err != nil {
		return fmt.Errorf("stream %s: %w", r.names.BatchesStream(), err)
	}
	// A work queue lends itself to no second consumer; its messages can be got.
	for sequence := uint64(1); ; {
		m, err := stream.GetMsg(ctx, sequence, jetstream.WithGetMsgSubject(r.names.Batches(r.Campaign)))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			break
		}
		if err != nil {
			return fmt.Errorf("read queue: %w", err)
		}
		sequence = m.Sequence + 1
		r.begun = true
		if b, err := envelope.Decode(m.Data); err == nil {
			for _, recipient := range b.Recipients {
				r.known.add(recipient.Address)
			}
		}
	}
	for e, err := range r.entries(ctx, r.names.CampaignOutcomes(r.Campaign)) {
		if err != nil { // whoever is in an entry that cannot be read might be sent to twice
			return err
		}
		r.begun = true
		for _, results := range e.Results {
			for _, recipient := range results.Recipients {
				r.known.add(recipient)
			}
		}
	}
	return nil
}

func (r *publishing) publishList(ctx context.Context) error {
	b := newBatcherOf(r.BatchSize, addressOf, octetsOf(), func(recipients []envelope.Recipient) error { return r.put(ctx, recipients) })
	b.room = r.room()
	for recipient, err := range r.List {
		if err != nil {
			return err
		}
		if u, ok := unusable(recipient); ok && len(r.receipt.Unusable) < keptUnusable {
			r.receipt.Unusable = append(r.receipt.Unusable, u)
		}
		if !r.known.add(recipient.Address) {
			r.receipt.Repeated++
			continue
		}
		if err := b.add(r.published(recipient)); err != nil {
			return err
		}
	}
	return b.flush()
}

// put publishes one batch. Its id is made of what is in it, so that a batch
// published again is the same batch.
func (r *publishing) put(ctx context.Context, recipients []envelope.Recipient) error {
	batch := r.batch(recipients)
	data := batch.AppendJSON(nil)
	if len(data) > r.limit() {
		return &TooLargeError{Recipient: recipients[0].Address, Bytes: len(data), Limit: int(r.js.Conn().MaxPayload()), Inline: r.Inline}
	}
	if !r.bound {
		if err := r.bind(ctx); err != nil {
			return err
		}
		batch = r.batch(recipients) // the message's date may be another's
		data = batch.AppendJSON(nil)
	}
	msg := &nats.Msg{Subject: r.names.Batches(r.Campaign), Data: data}
	if err := r.enqueue(ctx, msg, r.Campaign+"."+batch.ID); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	r.receipt.Batches++
	r.receipt.Recipients += len(recipients)
	if r.Progress != nil {
		r.Progress(r.receipt)
	}
	return nil
}

func (r *publishing) batch(recipients []envelope.Recipient) envelope.Batch {
	b := envelope.Batch{From: r.From, Recipients: recipients, MessageRef: r.ref}
	if r.Inline {
		b.MessageRef, b.Message = "", r.message
	}
	return r.named(b)
}

// headerRoom is what the header of a batch takes of the broker's max_payload.
const headerRoom = 1 << 10

// limit is how many octets a batch may have.
func (r *publishing) limit() int { return int(r.js.Conn().MaxPayload()) - headerRoom }

// room is how many octets of recipients a batch may have. Where there is none, each
// batch has one, and the broker's limit is told of that.
func (r *publishing) room() int {
	alone := r.batch(nil)
	return min(batchRoom, r.limit()-len(alone.AppendJSON(nil)))
}

// bind makes the message and the sender the campaign's, before its first batch.
func (r *publishing) bind(ctx context.Context) error {
	err := r.records.update(ctx, r.Campaign, func(record *subjects.Campaign) error {
		if err := r.fits(record); err != nil {
			return err
		}
		if err := r.finish(record); err != nil {
			return err
		}
		record.Message, record.From, record.Date = r.digest, r.From, r.date
		r.describe(record)
		return nil
	})
	if err == nil && !r.Inline {
		err = r.store(ctx)
	}
	r.bound = err == nil
	return err
}

// describe puts on record whom the campaign is to. What a repetition does not say
// stays.
func (r *publishing) describe(record *subjects.Campaign) {
	record.List = cmp.Or(r.ListID, record.List)
	record.Kind = cmp.Or(r.Kind, record.Kind, subjects.KindBulk)
}

// store puts the message into the store, once.
func (r *publishing) store(ctx context.Context) error {
	store, err := r.js.ObjectStore(ctx, r.names.MessageStore())
	if err == nil {
		if _, err = store.GetInfo(ctx, r.ref); errors.Is(err, jetstream.ErrObjectNotFound) {
			_, err = store.PutString(ctx, r.ref, r.message)
		}
	}
	if err != nil {
		return fmt.Errorf("store message: %w", err)
	}
	return nil
}

// end puts on record what was published.
func (r *publishing) end(ctx context.Context, whole bool) error {
	return r.records.update(ctx, r.Campaign, func(record *subjects.Campaign) error {
		record.Message, record.From, record.Date = r.digest, r.From, r.date
		r.describe(record)
		record.Batches += r.receipt.Batches
		record.Recipients += r.receipt.Recipients
		record.Complete = record.Complete || whole
		return nil
	})
}
