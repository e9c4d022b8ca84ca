package campaign

import (
	"crypto/sha256"
	"encoding/hex"

	"bulkmail/envelope"
	"bulkmail/envelope/letter"
)

// CheckLetters looks at the template of letters as [CheckMessage] does at a message
// to many. The error is an [*envelope.FieldError] with line and column where it does
// not parse.
func CheckLetters(message string) ([]Check, error) {
	t, err := letter.Compile(message, letter.Options{})
	if err != nil {
		return nil, &envelope.FieldError{Field: "message", Reason: err.Error()}
	}
	return checksOf(t, message), nil
}

func addressOf(r envelope.Recipient) string { return r.Address }

// octetsOf returns what tells how many octets a recipient has in a batch.
func octetsOf() func(envelope.Recipient) int {
	var written []byte
	return func(r envelope.Recipient) int {
		written = r.AppendJSON(written[:0])
		return len(written) + len(",")
	}
}

// published is a recipient as it stands in a batch.
func (p *Publication) published(r Recipient) envelope.Recipient {
	published := envelope.Recipient{Address: r.Address}
	if p.Letters {
		published.Letter = &envelope.Letter{Name: r.Name, Data: r.Data}
	}
	return published
}

// named gives a batch its id, which is made of what is in it.
func (p *Publication) named(b envelope.Batch) envelope.Batch {
	if p.Letters {
		b.Version = envelope.Version
	}
	sum := sha256.Sum256(b.AppendJSON(nil))
	b.ID = hex.EncodeToString(sum[:12])
	return b
}

// Batches makes the batches of letters as [Client.Publish] makes them of a campaign
// in which nothing was published before, for whoever wants to know their ids. It asks
// no broker, and takes it for one with room for batches of 512 KiB. An error of List
// or of each ends it.
func (p Publication) Batches(each func(envelope.Batch) error) error {
	p.Letters = true
	if p.BatchSize == 0 {
		p.BatchSize = DefaultBatchSize
	}
	known := newMailboxSet()
	b := newBatcherOf(p.BatchSize, addressOf, octetsOf(), func(recipients []envelope.Recipient) error {
		return each(p.named(envelope.Batch{From: p.From, Recipients: recipients, MessageRef: Digest(p.Message)}))
	})
	for recipient, err := range p.List {
		if err != nil {
			return err
		}
		if !known.add(recipient.Address) {
			continue
		}
		if err := b.add(p.published(recipient)); err != nil {
			return err
		}
	}
	return b.flush()
}
