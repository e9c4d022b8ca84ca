package campaign

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"bulkmail/envelope"
	"bulkmail/subjects"
)

// A Page is some of the outcomes of a campaign.
type Page struct {
	Outcomes []Outcome
	Next     string        // where the next page begins; empty: this is the last
	Partial  []*EntryError // entries of journals that were left out
}

// OutcomesPage returns up to limit outcomes of a campaign, and some more octets of
// texts and addresses than most at most. After is the Next of the page before, or
// empty. Batches come in the order in which they were taken up; within a batch
// recipients are sorted. A page costs what is on it, wherever it is, and entries
// that come meanwhile are on the pages behind, or on none.
func (c *Client) OutcomesPage(ctx context.Context, campaign string, f Filter, after string, limit, most int) (Page, error) {
	if err := checkName(campaign); err != nil {
		return Page{}, err
	}
	p := &paging{Client: c, campaign: campaign, filter: f, limit: limit, most: most}
	if err := p.begin(ctx, after); err != nil {
		return Page{}, err
	}
	for {
		m, err := p.stream.GetMsg(ctx, p.sequence, jetstream.WithGetMsgSubject(c.names.CampaignOutcomes(campaign)))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			if after == "" && len(p.page.Outcomes) == 0 && p.begun == 0 {
				return p.page, p.nothing(ctx)
			}
			return p.page, nil
		}
		if err != nil {
			return p.page, fmt.Errorf("read journals: %w", err)
		}
		p.begun++
		if p.sequence = m.Sequence; p.offset == 0 {
			first, err := p.first(ctx, m)
			if err != nil {
				return p.page, err
			}
			if !first {
				p.sequence++
				continue
			}
		}
		full, err := p.batch(ctx, m.Subject)
		if full || err != nil {
			return p.page, err
		}
		p.sequence, p.offset = m.Sequence+1, 0
	}
}

// paging is one page that is filled.
type paging struct {
	*Client
	campaign    string
	filter      Filter
	limit, most int
	stream      jetstream.Stream
	oldest      uint64 // sequence in the stream

	sequence uint64 // of the entry to look at next
	offset   int    // recipients of its batch that were on earlier pages
	begun    int    // entries that were looked at
	bytes    int
	page     Page
}

// begin reads where the page begins: sequence.offset.
func (p *paging) begin(ctx context.Context, after string) (err error) {
	p.sequence = 1
	if after != "" {
		sequence, offset, _ := strings.Cut(after, ".")
		p.sequence, err = strconv.ParseUint(sequence, 10, 64)
		if err == nil {
			p.offset, err = strconv.Atoi(offset)
		}
		if err != nil || p.offset < 0 {
			return &envelope.FieldError{Field: "after", Reason: fmt.Sprintf("%q: use what the page before says is next", after)}
		}
	}
	p.stream, err = p.js.Stream(ctx, p.names.OutcomesStream())
	if err != nil {
		return fmt.Errorf("stream %s: %w", p.names.OutcomesStream(), err)
	}
	p.oldest = p.stream.CachedInfo().State.FirstSeq
	return nil
}

// nothing is the error of a campaign without outcomes, if that is none.
func (p *paging) nothing(ctx context.Context) error {
	waiting, err := p.Waiting(ctx, p.campaign)
	if err == nil && waiting == 0 {
		return noCampaign(p.campaign)
	}
	return err
}

// first tells whether an entry is the first of its journal that is there. It says
// itself which one it was to follow; one by another program may not.
func (p *paging) first(ctx context.Context, m *jetstream.RawStreamMsg) (bool, error) {
	if follows, err := strconv.ParseUint(m.Header.Get(jetstream.ExpectedLastSubjSeqHeader), 10, 64); err == nil {
		return follows < p.oldest, nil
	}
	one, err := p.stream.GetMsg(ctx, 1, jetstream.WithGetMsgSubject(m.Subject))
	if err != nil {
		return false, fmt.Errorf("read journals: %w", err)
	}
	return one.Sequence == m.Sequence, nil
}

// batch puts the recipients of a batch on the page. It tells whether that is full.
func (p *paging) batch(ctx context.Context, subject string) (full bool, err error) {
	var state subjects.State
	var unreadable []*EntryError
	defer func() {
		// Once: with what is told of the batch first.
		if p.offset == 0 && p.page.Next != p.place(0) {
			p.page.Partial = append(p.page.Partial, unreadable...)
		}
	}()
	_, batch := p.names.Campaign(subject)
	for next := uint64(1); ; {
		m, err := p.stream.GetMsg(ctx, next, jetstream.WithGetMsgSubject(subject))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			break
		}
		if err != nil {
			return false, fmt.Errorf("read journals: %w", err)
		}
		next = m.Sequence + 1
		e, err := p.decode(subject, m.Data, m.Sequence)
		if wrong, ok := errors.AsType[*EntryError](err); ok {
			unreadable = append(unreadable, wrong)
			continue
		}
		state.Fold(e.Entry, nil)
	}
	recipients := slices.Sorted(maps.Keys(state.Results))
	for i := min(p.offset, len(recipients)); i < len(recipients); i++ {
		r := state.Results[recipients[i]]
		if !p.filter.wants(r) {
			continue
		}
		if len(p.page.Outcomes) >= p.limit || p.bytes > p.most {
			p.page.Next = p.place(i)
			return true, nil
		}
		p.page.Outcomes = append(p.page.Outcomes, outcomeOf(p.campaign, batch, recipients[i], r))
		p.bytes += len(recipients[i]) + len(r.Text) + len(batch) + outcomeBytes
	}
	return false, nil
}

// place is where a page begins with a recipient of this batch.
func (p *paging) place(recipient int) string { return fmt.Sprintf("%d.%d", p.sequence, recipient) }

// outcomeBytes is about what an outcome has beside its texts, as JSON.
const outcomeBytes = 200
