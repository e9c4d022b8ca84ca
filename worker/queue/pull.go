package queue

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// pullFor is how long a request for a batch waits on the broker.
	pullFor = 30 * time.Second
	// heartbeat is how often the broker says that a request still waits. After
	// two that are missing it is made anew.
	heartbeat = 3 * time.Second
)

// A pull asks one consumer for one batch at a time.
//
// [jetstream.Consumer.Messages] does not fit: it may not ask again when the last
// batch was quick, does not notice that its consumer was deleted between two
// requests, and after a reconnect what it had asked for twice lies in the client
// unseen while its ack wait passes. Here a request whose fate is not known is
// left behind with its inbox, and what still arrives there goes back at once.
type pull struct {
	nc      *nats.Conn
	subject string // where to ask
	status  chan nats.Status
	arrived chan *nats.Msg

	inbox string
	sub   *nats.Subscription
	waits bool // a request is under way

	mu     sync.Mutex // guards number, and that arrived has nothing of older ones
	number int        // of the inbox
}

func openPull(js jetstream.JetStream, stream, consumer string) (*pull, error) {
	p := &pull{
		nc:      js.Conn(),
		subject: apiPrefix(js.Options()) + "CONSUMER.MSG.NEXT." + stream + "." + consumer,
		arrived: make(chan *nats.Msg, 16),
	}
	if err := p.move(); err != nil {
		return nil, err
	}
	p.status = p.nc.StatusChanged(nats.CONNECTED)
	return p, nil
}

// move goes on with another inbox.
func (p *pull) move() error {
	old, number := p.sub, p.forget()
	p.inbox, p.waits = p.nc.NewInbox(), false
	var err error
	p.sub, err = p.nc.Subscribe(p.inbox, func(msg *nats.Msg) { p.sort(number, msg) })
	leave(old)
	return err
}

// forget returns what is here, and what still arrives, to the queue. It returns
// the number of the next inbox.
func (p *pull) forget() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.number++; len(p.arrived) > 0; {
		giveBack(<-p.arrived)
	}
	return p.number
}

func leave(sub *nats.Subscription) {
	if sub == nil {
		return
	}
	if err := sub.Drain(); err != nil {
		_ = sub.Unsubscribe()
	}
}

// apiPrefix is what every request to JetStream begins with.
func apiPrefix(o jetstream.JetStreamOptions) string {
	switch {
	case o.APIPrefix != "":
		return strings.TrimSuffix(o.APIPrefix, ".") + "."
	case o.Domain != "":
		return "$JS." + o.Domain + ".API."
	}
	return jetstream.DefaultAPIPrefix
}

// sort passes on what comes to the current inbox. A batch that comes to an older
// one goes back at once, while it is surely ours.
func (p *pull) sort(number int, msg *nats.Msg) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if number == p.number && len(p.arrived) < cap(p.arrived) {
		p.arrived <- msg
		return
	}
	giveBack(msg)
}

func giveBack(msg *nats.Msg) {
	if isBatch(msg) {
		_ = msg.Nak() // if that does not arrive, the broker does the same after the ack wait
	}
}

// isBatch tells a batch from what the broker says of the request.
func isBatch(msg *nats.Msg) bool {
	return len(msg.Data) > 0 || msg.Header.Get("Status") == ""
}

// errRequestOver says that the broker has dropped a request, and why.
type errRequestOver struct{ status, description string }

func (e errRequestOver) Error() string {
	return strings.TrimSpace("the broker says " + e.status + " " + e.description)
}

// next waits for a batch until ctx ends. The request goes on then: the next call
// waits for it.
func (p *pull) next(ctx context.Context) (*nats.Msg, error) {
	silent := time.NewTimer(2 * heartbeat)
	defer silent.Stop()
	for {
		if !p.waits {
			if err := p.ask(); err != nil {
				return nil, err
			}
			silent.Reset(2 * heartbeat)
		}
		select {
		case msg := <-p.arrived:
			if isBatch(msg) {
				p.waits = false
				return msg, nil
			}
			switch status := msg.Header.Get("Status"); status {
			case "100": // a heartbeat
				silent.Reset(2 * heartbeat)
			case "404", "408": // the request was not answered in its time
				p.waits = false
			default:
				p.waits = false
				return nil, errRequestOver{status, msg.Header.Get("Description")}
			}
		case <-p.status: // a request does not outlive its connection
			if err := p.move(); err != nil {
				return nil, err
			}
		case <-silent.C:
			if !p.nc.IsConnected() {
				return nil, nats.ErrDisconnected
			}
			if err := p.move(); err != nil {
				return nil, err
			}
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (p *pull) ask() error {
	request, err := json.Marshal(struct {
		Batch     int           `json:"batch"`
		Expires   time.Duration `json:"expires"`
		Heartbeat time.Duration `json:"idle_heartbeat"`
	}{1, pullFor, heartbeat})
	if err != nil {
		return err
	}
	if err := p.nc.PublishRequest(p.subject, p.inbox, request); err != nil {
		return fmt.Errorf("ask for a batch: %w", err)
	}
	p.waits = true
	return nil
}

// close ends the pull.
func (p *pull) close() {
	p.nc.RemoveStatusListener(p.status)
	p.forget()
	leave(p.sub)
}
