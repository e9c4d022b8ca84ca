package worker

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// progress renews the ack wait of a delivery. Sent as a request it is answered,
// which [jetstream.Msg.InProgress] is not.
var progress = []byte("+WPI")

// A lease is the time for which a delivery is surely ours: the broker gives the
// batch to nobody else before its ack wait is over. It is renewed by answered
// requests only, and counted from when they were sent. Once it has run out it
// is not renewed: the batch may have a new holder, and only the journal knows.
type lease struct {
	ackWait time.Duration
	until   atomic.Int64 // nanoseconds since start
	start   time.Time
	expired chan struct{} // closed when keep saw the end
}

func newLease(ackWait time.Duration) *lease {
	l := &lease{ackWait: ackWait, start: time.Now(), expired: make(chan struct{})}
	l.until.Store(int64(ackWait))
	return l
}

// held tells whether the delivery is ours still.
func (l *lease) held() bool { return int64(time.Since(l.start)) < l.until.Load() }

// renew lengthens the lease by a request sent then, if it was answered in time.
func (l *lease) renew(sent time.Time) {
	if l.held() {
		l.until.Store(int64(sent.Sub(l.start) + l.ackWait))
	}
}

// keep renews the lease until ctx ends or the lease does.
func (l *lease) keep(ctx context.Context, js jetstream.JetStream, msg jetstream.Msg) {
	tick := time.NewTicker(l.ackWait / 3)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if !l.held() {
			close(l.expired)
			return
		}
		sent := time.Now()
		asking, cancel := context.WithTimeout(ctx, l.ackWait/3)
		if _, err := js.Conn().RequestWithContext(asking, msg.Reply(), progress); err == nil {
			l.renew(sent)
		}
		cancel()
	}
}
