package tally

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"bulkmail/subjects"
)

// A Checkpoint says up to where all tallies are stored. It is written after them.
type Checkpoint struct {
	Place
	Detail uint64    `json:"detail"` // as Sequence, of what is told beside the counts
	AsOf   time.Time `json:"as_of"`  // the stream held nothing else then
	Teller string    `json:"teller"` // who writes; empty: it has ended

	stored uint64    // sequence in the stream of tallies
	at     time.Time // when the broker stored it
}

// ErrOvertaken says that somebody else goes on with the book.
var ErrOvertaken = errors.New("another worker counts")

// store keeps tallies on the broker. The zero store, where nobody has made the
// stream, is empty.
type store struct {
	js     jetstream.JetStream
	names  subjects.Names
	stream jetstream.Stream // nil: it is not there
}

func openStore(ctx context.Context, js jetstream.JetStream, names subjects.Names) (store, error) {
	stream, err := js.Stream(ctx, names.TallyStream())
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return store{js: js, names: names}, nil
	}
	if err != nil {
		return store{}, fmt.Errorf("stream %s: %w", names.TallyStream(), err)
	}
	return store{js, names, stream}, nil
}

// get reads what is stored under a subject, and when that was. The sequence is 0
// where nothing is.
func (s store) get(ctx context.Context, subject string, into any) (sequence uint64, at time.Time, err error) {
	if s.stream == nil {
		return 0, at, nil
	}
	m, err := s.stream.GetLastMsgForSubject(ctx, subject)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return 0, at, nil
	}
	if err == nil {
		err = json.Unmarshal(m.Data, into)
	}
	if err != nil {
		return 0, at, fmt.Errorf("tally %s: %w", subject, err)
	}
	return m.Sequence, m.Time, nil
}

func (s store) checkpoint(ctx context.Context) (c Checkpoint, err error) {
	c.stored, c.at, err = s.get(ctx, s.names.Tally(subjects.AllCampaigns), &c)
	return c, err
}

// load reads the tally of a campaign.
func (s store) load(ctx context.Context, campaign string, detail bool) (*open, error) {
	o := &open{touched: time.Now()}
	var err error
	if o.stored, _, err = s.get(ctx, s.names.Tally(campaign), &o.Counts); err == nil && detail {
		o.storedDetail, _, err = s.get(ctx, s.names.TallyDetail(campaign), &o.Detail)
	}
	return o, err
}

// atOnce is how many tallies are read at a time.
const atOnce = 16

// loadAll reads the tallies of campaigns, in their order.
func (s store) loadAll(ctx context.Context, campaigns []string, detail bool) ([]*open, error) {
	loaded, problems := make([]*open, len(campaigns)), make([]error, len(campaigns))
	next := make(chan int)
	var loading sync.WaitGroup
	for range min(atOnce, len(campaigns)) {
		loading.Go(func() {
			for i := range next {
				loaded[i], problems[i] = s.load(ctx, campaigns[i], detail)
			}
		})
	}
	for i := range campaigns {
		next <- i
	}
	close(next)
	loading.Wait()
	if err := errors.Join(problems...); err != nil {
		return nil, err
	}
	return loaded, nil
}

// campaigns are those of which anything is stored.
func (s store) campaigns(ctx context.Context) ([]string, error) {
	if s.stream == nil {
		return nil, nil
	}
	info, err := s.stream.Info(ctx, jetstream.WithSubjectFilter(s.names.Tally("*")))
	if err != nil {
		return nil, fmt.Errorf("stream %s: %w", s.names.TallyStream(), err)
	}
	var names []string
	for subject := range info.State.Subjects {
		if name := strings.Clone(subject[strings.LastIndexByte(subject, '.')+1:]); name != subjects.AllCampaigns {
			names = append(names, name)
		}
	}
	return names, nil
}

// put begins to write something over what is stored at a sequence.
func (s store) put(subject string, value any, over uint64) (jetstream.PubAckFuture, error) {
	data, err := json.Marshal(value)
	if err != nil {
		return nil, err
	}
	// Not the option of the library, which would wait for a place in its window.
	msg := &nats.Msg{Subject: subject, Data: data, Header: nats.Header{jetstream.ExpectedLastSubjSeqHeader: {strconv.FormatUint(over, 10)}}}
	return s.js.PublishMsgAsync(msg)
}

// await is the sequence of what [store.put] wrote.
func await(ctx context.Context, put jetstream.PubAckFuture) (uint64, error) {
	select {
	case ack := <-put.Ok():
		return ack.Sequence, nil
	case err := <-put.Err():
		if refused(err) {
			return 0, ErrOvertaken
		}
		return 0, err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// forgotten is how long it is kept that a tally was forgotten. A teller finds out at
// its next beat.
const forgotten = time.Hour

// Forget forgets the tally of a campaign whose journals are gone. Something empty
// takes its place, so that no teller stores what it has counted over nothing.
func Forget(ctx context.Context, js jetstream.JetStream, names subjects.Names, campaign string) error {
	for _, subject := range []string{names.Tally(campaign), names.TallyDetail(campaign)} {
		if _, err := js.Publish(ctx, subject, []byte("{}"), jetstream.WithMsgTTL(forgotten)); err != nil {
			return fmt.Errorf("tally %s: %w", subject, err)
		}
	}
	return nil
}

// refused tells whether the broker has something newer there. A replicated stream
// has a code of its own for that.
func refused(err error) bool {
	const wrongLastSequence, wrongLastSequenceReplicated = 10071, 10164
	api, ok := errors.AsType[*jetstream.APIError](err)
	return ok && (api.ErrorCode == wrongLastSequence || api.ErrorCode == wrongLastSequenceReplicated)
}
