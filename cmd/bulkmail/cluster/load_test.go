//go:build compose

package cluster_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const (
	campaign  = "storm"
	domains   = 20
	batchSize = 100
	// backlog is how many recipients may be on the list and not be sent to yet:
	// more than the publisher keeps to itself, so that workers always have work.
	backlog = 2*domains*batchSize + 2000
	// publications is how often the list is published at most: the loss of the
	// queue's leader may stop several before there is a new one.
	publications = 20
	// feedEvery and feedMost are the pace of the list at its fastest: more than two
	// workers can send, as each relay takes a while over every envelope.
	feedEvery = 20 * time.Millisecond
	feedMost  = 80
)

// A load is a list that grows while it is published, with the publisher's
// certificate, in a container of the demo service.
type load struct {
	t     testing.TB
	relay []*sink

	mu    sync.Mutex    // guards what follows
	list  []string      // recipients so far
	grown chan struct{} // closed and replaced when the list grows or ends
	ended bool

	feeding   sync.WaitGroup
	stopFeed  context.CancelFunc
	published chan error // of the publisher that came to the end of the list
	said      bytes.Buffer
}

// startLoad publishes until stop.
func startLoad(t testing.TB, relays ...*sink) *load {
	l := &load{t: t, relay: relays, grown: make(chan struct{}), published: make(chan error, 1)}
	ctx, cancel := context.WithCancel(t.Context())
	l.stopFeed = cancel
	l.feeding.Go(func() { l.feed(ctx) })
	go l.publish(t.Context())
	return l
}

func (l *load) taken() (n int64) {
	for _, r := range l.relay {
		n += r.taken.Load()
	}
	return n
}

// feed lets the list grow as fast as the backlog allows.
func (l *load) feed(ctx context.Context) {
	tick := time.NewTicker(feedEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			l.mu.Lock()
			l.ended = true
			close(l.grown)
			l.mu.Unlock()
			return
		}
		l.mu.Lock()
		for range min(feedMost, backlog-(len(l.list)-int(l.taken()))) {
			n := len(l.list)
			l.list = append(l.list, fmt.Sprintf("reader-%06d@d%02d.test", n, n%domains))
		}
		close(l.grown)
		l.grown = make(chan struct{})
		l.mu.Unlock()
	}
}

// WriteTo writes the list from its beginning to its end, which may be yet to
// come.
func (l *load) WriteTo(w io.Writer) (int64, error) {
	for i := 0; ; {
		l.mu.Lock()
		more, grown, ended := l.list[i:], l.grown, l.ended
		l.mu.Unlock()
		for _, recipient := range more {
			if _, err := fmt.Fprintln(w, recipient); err != nil {
				return 0, err
			}
		}
		i += len(more)
		if len(more) == 0 && ended {
			return 0, nil
		}
		<-grown
	}
}

// publish does what the command line tells one to do when a publication stops:
// the same again, and it goes on where it stopped.
func (l *load) publish(ctx context.Context) {
	for try := 1; ; try++ {
		cmd := command(ctx, "docker-compose", "run", "--rm", "-T", "--no-deps", "demo", "publish", "--from", "news@example.com",
			"--message", "/list/plain.eml", "--campaign", campaign, "--batch-size", fmt.Sprint(batchSize), "--wait", "-")
		var errs bytes.Buffer
		l.said.Reset()
		cmd.Stdout, cmd.Stderr = &l.said, &errs
		in, err := cmd.StdinPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			l.published <- err
			return
		}
		go func() {
			_, _ = l.WriteTo(in) // the publisher tells why it reads no more
			in.Close()
		}()
		err = cmd.Wait()
		if err == nil || try == publications || ctx.Err() != nil {
			if err != nil {
				err = fmt.Errorf("publisher: %w\n%s", err, errs.Bytes())
			}
			l.published <- err
			return
		}
		l.t.Logf("the publisher stopped, and is started again: %v\n%s", err, errs.Bytes())
	}
}

// stop ends the list, waits until everybody on it has a final outcome, and
// returns it.
func (l *load) stop() []string {
	l.t.Helper()
	l.stopFeed()
	l.feeding.Wait()
	select {
	case err := <-l.published:
		if err != nil {
			l.t.Fatal(err)
		}
	case <-time.After(patience):
		l.t.Fatalf("the publisher still waits for outcomes; %d on the list, %d taken", len(l.list), l.taken())
	}
	return l.list
}

// progress waits until the sinks have taken some hundreds more.
func (l *load) progress() {
	l.t.Helper()
	from := l.taken()
	until(l.t, "the list to go on", func() bool {
		select {
		case err := <-l.published:
			l.t.Fatalf("the publisher ended before the list: %v", err)
		default:
		}
		return l.taken() >= from+500
	})
}

// A sink is what a relay's log tells.
type sink struct {
	container container
	taken     atomic.Int64
}

// A taking is one line of a sink: a message that it took, just before its reply.
type taking struct {
	Time       time.Time `json:"time"`
	Recipients []string  `json:"recipients"`
}

// followSink counts what a relay takes from now on.
func followSink(t testing.TB, service string) *sink {
	t.Helper()
	s := &sink{container: one(t, service)}
	s.taken.Store(0)
	cmd := command(t.Context(), "docker", "logs", "--follow", "--since", "0s", s.container.ID)
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	var following sync.WaitGroup
	following.Go(func() {
		readTakings(out, func(tx taking) { s.taken.Add(int64(len(tx.Recipients))) })
	})
	t.Cleanup(func() { // the context has ended by now, and the program with it
		following.Wait()
		_ = cmd.Wait()
	})
	return s
}

func readTakings(r io.Reader, each func(taking)) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var tx taking
		if json.Unmarshal(lines.Bytes(), &tx) == nil && len(tx.Recipients) > 0 {
			each(tx)
		}
	}
}

// accepted is when the sinks took each recipient, from their whole logs.
func accepted(t testing.TB, sinks ...*sink) map[string][]time.Time {
	t.Helper()
	all := make(map[string][]time.Time)
	for _, s := range sinks {
		readTakings(bytes.NewReader([]byte(docker(t, "docker", "logs", s.container.ID))), func(tx taking) {
			for _, recipient := range tx.Recipients {
				all[recipient] = append(all[recipient], tx.Time)
			}
		})
	}
	return all
}
