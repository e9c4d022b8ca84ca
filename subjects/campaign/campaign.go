// Package campaign is the client of bulkmail: it publishes campaigns, waits for
// their end, reads what became of every recipient, and holds, resumes and ends
// them. It speaks to the broker alone; workers do the sending. The command line
// is made of it, and it prints nothing.
//
// # The way of a campaign
//
//  1. [Client.Publish] puts a list of recipients and a message on the queue, in
//     batches. It can be repeated: who was published in this campaign before is
//     left out.
//  2. [Client.Follow] adds up what becomes of the recipients while workers send,
//     and ends when nothing of the campaign is left in the queue; [Client.Wait] is
//     the same for who wants the end alone. Any program may follow, also one that
//     has not published.
//  3. [Client.Outcomes] yields every recipient with its newest state, at any time.
//     [Client.Status] counts them, [Client.Statuses] those of all campaigns.
//  4. [Client.Pause], [Client.Resume] and [Client.Cancel] say what workers may do.
//     They act within one envelope.
//  5. [Client.DeadLetters] yields batches that could not be read and what expired;
//     [Client.RetryDead] publishes one again, [Client.DropDead] forgets it.
//  6. [Client.Delete] removes what a campaign that is over has left.
//
// A campaign is a name: 1 to 64 letters, digits, - and _. Its record on the
// broker, a [subjects.Campaign], is made by the first batch that is published or
// by the first change of its state. Batches that other programs publish under a
// name without a record are a campaign as well.
//
// # The broker
//
// The streams must be there: a worker makes them when it starts, so does
// `bulkmail provision`, and a program may call [subjects.Provision]. A Client is
// safe for concurrent use, opens nothing that must be closed, and leaves nothing
// on the broker but what it was asked to write. The connection is the caller's.
//
// # Errors
//
// Every error is one line. Those that a program may want to tell apart have types:
// [ErrNoCampaign], [ErrEmptyList], [ErrNoDeadLetter], [ErrUnfinished], [*CancelledError],
// [*MessageError], [*MessageChangedError], [*SenderChangedError], [*TooLargeError], [*MissingError],
// and [*EntryError]; what is wrong with a [Publication] is an
// [*envelope.FieldError], with a list a [*list.Error]. Whatever the broker says is
// wrapped.
package campaign

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"bulkmail/envelope"
	"bulkmail/subjects"
)

// Options are what a program may say of itself. The zero value is fine.
type Options struct {
	// Actor is on record for what this client changes, for example
	// "ann@office". Empty: nobody is named.
	Actor string
	// Trouble is told, if not nil, when the queue does not answer and Publish
	// tries on.
	Trouble func(error)
}

// A Client is what a program asks of bulkmail.
type Client struct {
	js    jetstream.JetStream
	names subjects.Names
	o     Options

	turnOver time.Duration // after which silence the turn of a publication is over
}

// New returns a client of what is under names on the broker of js.
func New(js jetstream.JetStream, names subjects.Names, o Options) *Client {
	return &Client{js, names, o, turnOver}
}

// As is the same client for whatever another actor wants changed.
func (c *Client) As(actor string) *Client {
	as := *c
	as.o.Actor = actor
	return &as
}

// Record is the record of a campaign. The error is [ErrNoCampaign] where it has none.
func (c *Client) Record(ctx context.Context, campaign string) (subjects.Campaign, error) {
	if err := checkName(campaign); err != nil {
		return subjects.Campaign{}, err
	}
	records, err := c.records(ctx)
	if err != nil {
		return subjects.Campaign{}, err
	}
	record, revision, err := records.get(ctx, campaign)
	if err == nil && revision == 0 {
		err = noCampaign(campaign)
	}
	return record, err
}

// Campaigns are the names that the broker knows of, in no order.
func (c *Client) Campaigns(ctx context.Context) ([]string, error) {
	records, err := c.records(ctx)
	if err != nil {
		return nil, err
	}
	names, err := records.names(ctx)
	if err != nil {
		return nil, err
	}
	known := make(map[string]bool)
	for _, name := range names {
		known[name] = true
	}
	for stream, filter := range map[string]string{
		c.names.BatchesStream():  c.names.Batches("*"),
		c.names.OutcomesStream(): c.names.CampaignOutcomes("*"),
	} {
		bySubject, err := c.count(ctx, stream, filter)
		if err != nil {
			return nil, err
		}
		for subject := range bySubject {
			if name, _ := c.names.Campaign(subject); !known[name] {
				name = strings.Clone(name)
				known[name] = true
				names = append(names, name)
			}
		}
	}
	return names, nil
}

// Waiting is the number of a campaign's batches in the queue, those in workers'
// hands and those that wait for their next attempt included.
func (c *Client) Waiting(ctx context.Context, campaign string) (int, error) {
	if err := checkName(campaign); err != nil {
		return 0, err
	}
	subject := c.names.Batches(campaign)
	bySubject, err := c.count(ctx, c.names.BatchesStream(), subject)
	return int(bySubject[subject]), err
}

// count is how many messages a stream has on each subject that fits a filter.
func (c *Client) count(ctx context.Context, stream, filter string) (map[string]uint64, error) {
	s, err := c.js.Stream(ctx, stream)
	if err != nil {
		return nil, fmt.Errorf("stream %s: %w", stream, err)
	}
	info, err := s.Info(ctx, jetstream.WithSubjectFilter(filter))
	if err != nil {
		return nil, fmt.Errorf("stream %s: %w", stream, err)
	}
	return info.State.Subjects, nil
}

// known tells whether a campaign has batches in the queue or outcomes.
func (c *Client) known(ctx context.Context, campaign string) (bool, error) {
	waiting, err := c.Waiting(ctx, campaign)
	if err != nil || waiting > 0 {
		return waiting > 0, err
	}
	last, err := c.lastEntry(ctx, c.names.CampaignOutcomes(campaign))
	return last > 0, err
}

// checkName refuses what cannot be a campaign.
func checkName(campaign string) error {
	if !subjects.ValidID(campaign) || campaign == subjects.AllCampaigns {
		return &envelope.FieldError{Field: "campaign", Reason: fmt.Sprintf("%q: use 1 to 64 letters, digits, - or _", campaign)}
	}
	return nil
}

// Errors of a Client. They are wrapped with the name or number that they are about.
var (
	ErrNoCampaign   = errors.New("nothing was published under the campaign")
	ErrEmptyList    = errors.New("there is no recipient in the list")
	ErrNoDeadLetter = errors.New("there is no dead letter")
	ErrUnfinished   = errors.New("some of its batches are in the queue: cancel it first, or wait for its end")
)

func noCampaign(name string) error { return fmt.Errorf("%w %s", ErrNoCampaign, name) }

// A CancelledError is a campaign that nothing can be done with any more.
type CancelledError struct{ Campaign string }

func (e *CancelledError) Error() string {
	return fmt.Sprintf("campaign %s was cancelled, which is for good", e.Campaign)
}

// A MessageChangedError is a message for a campaign that has another one.
type MessageChangedError struct{ Campaign string }

func (e *MessageChangedError) Error() string {
	return fmt.Sprintf("campaign %s was published with another message: choose another campaign", e.Campaign)
}

// A SenderChangedError is a sender for a campaign that has another one.
type SenderChangedError struct{ Campaign, Sender string } // Sender is the campaign's

func (e *SenderChangedError) Error() string {
	return fmt.Sprintf("campaign %s was published with the sender %q: choose another campaign", e.Campaign, e.Sender)
}

// A TooLargeError is a batch that the broker does not take although it has one
// recipient.
type TooLargeError struct {
	Recipient    string
	Bytes, Limit int  // of the batch, and what the broker takes
	Inline       bool // the message is in the batch, and belongs into the store
}

func (e *TooLargeError) Error() string {
	if e.Inline {
		return fmt.Sprintf("with the message inline a batch has %d bytes, and the broker takes %d: have the message stored", e.Bytes, e.Limit)
	}
	return fmt.Sprintf("a batch with %s alone has %d bytes, and the broker takes %d: shorten the data, or raise the broker's max_payload", e.Recipient, e.Bytes, e.Limit)
}

// A MissingError says that some recipients have no final outcome although
// nothing of the campaign is left in the queue.
type MissingError struct {
	Campaign string
	Missing  int // recipients
}

func (e *MissingError) Error() string {
	return fmt.Sprintf("%d of the recipients of campaign %s are without a final outcome although all batches are done", e.Missing, e.Campaign)
}

// An EntryError is an entry of a journal that cannot be read. What is behind it
// can be.
type EntryError struct {
	Subject  string // the journal
	Sequence uint64 // of the entry in the stream of outcomes
	Err      error
}

func (e *EntryError) Error() string {
	return fmt.Sprintf("journal %s: entry %d cannot be read: %v", e.Subject, e.Sequence, e.Err)
}

// Unwrap returns what is wrong with the entry.
func (e *EntryError) Unwrap() error { return e.Err }
