package worker

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"bulkmail/subjects"
	"bulkmail/subjects/broker/brokertest"
)

// naks counts what is said of a message. Nothing else may be asked of it.
type naks struct {
	jetstream.Msg
	said []time.Duration // by their delay
}

func (n *naks) Nak() error                             { return n.NakWithDelay(0) }
func (n *naks) NakWithDelay(delay time.Duration) error { n.said = append(n.said, delay); return nil }

func TestABatchIsGivenBackOnlyWhileItIsSurelyOurs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		msg := &naks{}
		d := &delivery{msg: msg, lease: newLease(30 * time.Second), log: slog.New(slog.DiscardHandler)}
		d.nak(t.Context(), 0)
		time.Sleep(30*time.Second - 1)
		d.nak(t.Context(), time.Minute)
		if len(msg.said) != 2 || msg.said[0] != 0 || msg.said[1] != time.Minute {
			t.Errorf("within the ack wait it was given back with delays %v", msg.said)
		}
		time.Sleep(time.Nanosecond)
		d.nak(t.Context(), 0) // the broker would take it for the word of the new holder
		if len(msg.said) != 2 {
			t.Error("it was given back when the ack wait was over")
		}
	})
}

func TestALeaseLastsWhileItIsRenewedAndForOneAckWaitAfterTheLastAnswer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const ackWait = 30 * time.Second
		l := newLease(ackWait)
		var answered time.Time
		var silent atomic.Bool
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		go l.keep(ctx, func(ctx context.Context) error {
			asked := time.Now()
			if silent.Load() {
				<-ctx.Done()
				return ctx.Err()
			}
			time.Sleep(time.Second)
			answered = asked
			return nil
		})
		time.Sleep(10 * time.Minute)
		if !l.held() {
			t.Fatal("it ran out although the broker answered")
		}
		synctest.Wait()
		silent.Store(true)
		<-l.expired
		if l.held() {
			t.Error("it is held, and said to be over")
		}
		if late := time.Since(answered) - ackWait; late < 0 || late > ackWait/3+time.Second {
			t.Errorf("it was said to be over %v after its end", late)
		}
		l.renewed(time.Now())
		if l.held() {
			t.Error("an answer that came too late made it ours again: somebody else may have it")
		}
	})
}

func TestARenewalIsARequestThatTheBrokerAnswers(t *testing.T) {
	t.Parallel()
	js := brokertest.Connect(t, brokertest.Start(t).URL())
	names := subjects.Names{}
	if err := subjects.Provision(t.Context(), js, names, subjects.Options{AckWait: time.Minute, OutcomesMaxAge: time.Hour}, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(t.Context(), names.Batches("c"), []byte("{}")); err != nil {
		t.Fatal(err)
	}
	consumer, err := js.Consumer(t.Context(), names.BatchesStream(), subjects.Consumer)
	if err != nil {
		t.Fatal(err)
	}
	msg, err := consumer.Next()
	if err != nil {
		t.Fatal(err)
	}
	said, err := js.Conn().SubscribeSync(msg.Reply())
	if err != nil {
		t.Fatal(err)
	}
	w := &Worker{js: js, names: names, log: slog.New(slog.DiscardHandler), ackWait: time.Minute}
	d, err := w.newDelivery(msg)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.renew(t.Context()); err != nil {
		t.Errorf("renewed: %v", err)
	}
	if request, err := said.NextMsgWithContext(t.Context()); err != nil || string(request.Data) != "+WPI" {
		t.Errorf("the broker was told %q (%v)", request.Data, err)
	}
	js.Conn().Close()
	if err := d.renew(t.Context()); err == nil || errors.Is(err, context.Canceled) {
		t.Errorf("renewed without a connection: %v", err)
	}
}
