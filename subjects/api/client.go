package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"bulkmail/subjects"
	"bulkmail/subjects/campaign"
)

// ErrNoWorker says that nobody answers: no worker runs, or the user of the broker
// may not ask.
var ErrNoWorker = errors.New("no worker answers")

const (
	// within is how long an answer may take where the context says nothing.
	within = 30 * time.Second
	// lookEvery is how often somebody who waits looks whether the broker has
	// refused the request.
	lookEvery = 20 * time.Millisecond
)

// A Client asks the workers. It is safe for concurrent use.
type Client struct {
	nc    *nats.Conn
	names subjects.Names
	actor string
}

// New returns a client that says it asks for actor, for example "ann@office".
func New(nc *nats.Conn, names subjects.Names, actor string) *Client {
	return &Client{nc, names, actor}
}

// Pause holds a campaign. It returns the record, and the state of before. Why may
// be empty.
func (c *Client) Pause(ctx context.Context, name, why string) (Record, subjects.CampaignState, error) {
	return c.change(ctx, Pause, name, why)
}

// Resume goes on with a campaign that was paused.
func (c *Client) Resume(ctx context.Context, name, why string) (Record, subjects.CampaignState, error) {
	return c.change(ctx, Resume, name, why)
}

// Cancel ends a campaign for good.
func (c *Client) Cancel(ctx context.Context, name, why string) (Record, subjects.CampaignState, error) {
	return c.change(ctx, Cancel, name, why)
}

func (c *Client) change(ctx context.Context, v Verb, name, why string) (record Record, before subjects.CampaignState, err error) {
	header, err := c.ask(ctx, v, name, ChangeRequest{why}, &record)
	return record, subjects.CampaignState(header.Get(HeaderBefore)), err
}

// Status tells how far a campaign is.
func (c *Client) Status(ctx context.Context, name string) (campaign.Status, error) {
	var list []campaign.Status
	_, err := c.ask(ctx, Status, name, StatusRequest{}, &list)
	if err == nil && len(list) != 1 {
		err = fmt.Errorf("the worker answers with %d campaigns", len(list))
	}
	if err != nil {
		return campaign.Status{}, err
	}
	return list[0], nil
}

// Statuses tells how far all campaigns are, sorted by name.
func (c *Client) Statuses(ctx context.Context) ([]campaign.Status, error) {
	var all []campaign.Status
	for after := ""; ; {
		var list []campaign.Status
		header, err := c.ask(ctx, Status, subjects.AllCampaigns, StatusRequest{after}, &list)
		all = append(all, list...)
		if after = header.Get(HeaderNext); err != nil || after == "" {
			return all, err
		}
	}
}

// Detail tells how the recipients of a campaign spread.
func (c *Client) Detail(ctx context.Context, name string) (d campaign.Detail, err error) {
	_, err = c.ask(ctx, Detail, name, nil, &d)
	return d, err
}

// Campaigns are the names of all campaigns, sorted.
func (c *Client) Campaigns(ctx context.Context) ([]string, error) {
	var names []string
	_, err := c.ask(ctx, Campaigns, subjects.AllCampaigns, nil, &names)
	return names, err
}

// Outcomes yields every recipient of a campaign with its newest state, as
// [campaign.Client.Outcomes] does, in the order in which batches were taken up.
func (c *Client) Outcomes(ctx context.Context, name string, f campaign.Filter) iter.Seq2[campaign.Outcome, error] {
	return func(yield func(campaign.Outcome, error) bool) {
		for request := (OutcomesRequest{Status: f.Status}); ; {
			var page OutcomesAnswer
			if _, err := c.ask(ctx, Outcomes, name, request, &page); err != nil {
				yield(campaign.Outcome{}, err)
				return
			}
			for _, unreadable := range page.Unreadable {
				if !yield(campaign.Outcome{}, unreadable) {
					return
				}
			}
			for i := range page.Outcomes {
				if !yield(page.Outcomes[i], nil) {
					return
				}
			}
			if request.After = page.Next; page.Next == "" {
				return
			}
		}
	}
}

// ask asks and waits for the answer. The error is [ErrNoWorker] where nobody
// answers, and an [*Error] where a worker says no.
func (c *Client) ask(ctx context.Context, v Verb, about string, request, answer any) (nats.Header, error) {
	msg := nats.NewMsg(c.names.API(string(v), about))
	if c.actor != "" {
		msg.Header.Set(HeaderActor, c.actor)
	}
	if request != nil {
		var err error
		if msg.Data, err = json.Marshal(request); err != nil {
			return nil, err
		}
	}
	m, err := c.request(ctx, msg)
	if err != nil {
		return nil, err
	}
	if code := m.Header.Get(micro.ErrorCodeHeader); code != "" {
		n, err := strconv.Atoi(code)
		if err != nil {
			n = Unavailable
		}
		return m.Header, &Error{n, m.Header.Get(micro.ErrorHeader)}
	}
	if err := json.Unmarshal(m.Data, answer); err != nil {
		return m.Header, fmt.Errorf("the answer of a worker to %s cannot be read: %w", v, err)
	}
	return m.Header, nil
}

// request waits for an answer, or for the broker's word that there will be none:
// it refuses a request without telling whoever waits.
func (c *Client) request(ctx context.Context, msg *nats.Msg) (*nats.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	before := c.nc.LastError()
	type reply struct {
		m   *nats.Msg
		err error
	}
	came := make(chan reply, 1)
	go func() {
		m, err := c.nc.RequestMsgWithContext(ctx, msg)
		came <- reply{m, err}
	}()
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for {
		select {
		case r := <-came:
			if errors.Is(r.err, nats.ErrNoResponders) {
				return nil, ErrNoWorker
			}
			if r.err != nil {
				return nil, fmt.Errorf("ask a worker: %w", r.err)
			}
			return r.m, nil
		case <-look.C:
			last := c.nc.LastError()
			if last != before && errors.Is(last, nats.ErrPermissionViolation) && strings.Contains(last.Error(), msg.Subject) { //nolint:errorlint // the same one
				cancel()
				<-came
				return nil, ErrNoWorker
			}
		}
	}
}
