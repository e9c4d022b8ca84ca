package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"bulkmail/envelope"
	"bulkmail/relay"
	"bulkmail/relay/smtp"
	"bulkmail/subjects"
	"bulkmail/subjects/campaign"
	"bulkmail/worker/runner"
)

const (
	benchCampaign = "bench"
	benchHeader   = "From: News <news@bench.test>\r\nTo: Everybody <everybody@bench.test>\r\nSubject: bench\r\n\r\n"
	benchLine     = "0123456789 abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ .,;:\r\n"
	// benchPatience is how long nothing may happen.
	benchPatience = 30 * time.Second
)

// A benchRun is one run of bench: broker and relay are there.
type benchRun struct {
	*benchOptions
	*client
	relay    relay.Relay
	profiles *profiles
	key      *benchKey // nil: nothing is signed

	object  string // the message in the object store
	settled benchMeter
	result  benchResult
}

// measure publishes, drains, and then measures the latency on the idle system.
func (h *benchRun) measure(ctx context.Context) error {
	queue, err := h.js.Stream(ctx, h.names.BatchesStream())
	if err != nil {
		return err
	}
	began := time.Now()
	if err := h.publishAll(ctx); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	h.result.PublishSeconds = seconds(time.Since(began))

	h.result.SignatureSeconds, h.result.FloorPerSecond = h.floor()

	working, stop := context.WithCancel(ctx)
	defer stop()
	var worker error
	var ended chan struct{}
	err = h.profiles.during(func() error {
		began, cpu := time.Now(), cpuTime()
		w, err := runner.New(h.worker())
		if err != nil {
			return err
		}
		ended = make(chan struct{})
		go func() {
			defer close(ended)
			worker = w.Run(working)
		}()
		err = h.awaitDrain(working, queue, ended, h.recipients)
		took := time.Since(began)
		h.result.DrainSeconds, h.result.CPUSeconds = seconds(took), seconds(cpuTime()-cpu)
		h.result.Recipients, h.result.Envelopes = h.recipients, int(h.settled.envelopes.Load())
		h.result.RecipientsPerSecond = math.Round(float64(h.recipients) / took.Seconds())
		h.result.EnvelopesPerSecond = math.Round(float64(h.result.Envelopes) / took.Seconds())
		h.result.MaxRSSBytes = maxRSS()
		return err
	})
	if err == nil {
		err = h.latency(working, queue, ended)
	}
	stop()
	if ended != nil {
		<-ended
	}
	if err = errors.Join(err, worker); err != nil {
		return err
	}
	return h.account(ctx)
}

// worker is the real worker, whose relay is metered. What is deferred is given up
// at once: a bench that waits for retries measures nothing.
func (h *benchRun) worker() runner.Options {
	o := h.options(h.log)
	o.Prefix, o.RetryFor, o.HTTP, o.Metrics = h.names.Prefix(), time.Nanosecond, runner.HTTPOff, h.metrics
	o.RelayURLs, o.RelaysFile = "", ""
	o.KeysFile, o.DKIMFile, o.UnsubscribeURL, o.UnsubscribeMailto, o.ReturnPath = "", h.key.file(), "", "", ""
	if h.letters {
		o.UnsubscribeURL = "https://news.bench.test/u/"
	}
	o.Relays = []relay.Relay{{Config: h.relay.Config, Dialer: metered{h.relay.Dialer, &h.settled}}}
	return o
}

// publishAll puts all batches on the queue, one after the other.
func (h *benchRun) publishAll(ctx context.Context) error {
	store, err := h.js.ObjectStore(ctx, h.names.MessageStore())
	if err != nil {
		return err
	}
	h.object = "message"
	message := benchMessage(h.size)
	if h.letters {
		message = benchTemplate(h.size)
	}
	if _, err := store.PutString(ctx, h.object, message); err != nil {
		return err
	}
	var data []byte
	for first := 0; first < h.recipients; first += benchBatch {
		n := min(benchBatch, h.recipients-first)
		recipients := make([]string, n)
		for i := range recipients {
			// Domain by domain, as publish has them.
			recipients[i] = fmt.Sprintf("recipient%07d@domain%03d.test", first+i, i*min(h.domains, n)/n)
		}
		if data, err = h.put(ctx, strconv.Itoa(first), recipients, data[:0]); err != nil {
			return err
		}
	}
	return nil
}

// benchMessage is a message of so many octets, benchMinSize at least.
func benchMessage(size int) string {
	text := benchHeader + strings.Repeat(benchLine, (size-len(benchHeader))/len(benchLine)+1)
	text = text[:size-len("\r\n")]
	if whole, cut := strings.CutSuffix(text, "\r"); cut {
		text = whole + "." // no bare CR
	}
	return text + "\r\n"
}

func (h *benchRun) put(ctx context.Context, id string, recipients []string, buf []byte) ([]byte, error) {
	b := envelope.Batch{ID: id, From: "news@bench.test", Recipients: envelope.To(recipients...), MessageRef: h.object}
	if h.letters {
		for i := range b.Recipients {
			b.Recipients[i].Letter = benchLetter(b.Recipients[i].Address)
		}
	}
	buf = b.AppendJSON(buf)
	_, err := h.js.Publish(ctx, h.names.Batches(benchCampaign), buf)
	return buf, err
}

// awaitDrain waits until so many recipients have a verdict and the queue is
// empty.
func (h *benchRun) awaitDrain(ctx context.Context, queue jetstream.Stream, ended <-chan struct{}, recipients int) error {
	all := h.settled.reached(int64(recipients))
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	last, since := int64(-1), time.Now()
	for done := false; !done; {
		select {
		case <-all:
			done = true
		case <-tick.C:
			if n := h.settled.recipients.Load(); n != last {
				last, since = n, time.Now()
			} else if time.Since(since) > benchPatience {
				return fmt.Errorf("the relay took %s of %s, and none for %s", number(int(n)), count(recipients, "recipient", "recipients"), benchPatience)
			}
			// Batches that went to the dead letters.
			if info, err := queue.Info(ctx); err == nil && info.State.Msgs == 0 {
				done = true
			}
		case <-ended:
			return errors.New("the worker ended")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return h.awaitEmpty(ctx, queue)
}

// awaitEmpty waits until every batch is settled.
func (h *benchRun) awaitEmpty(ctx context.Context, queue jetstream.Stream) error {
	ctx, cancel := context.WithTimeout(ctx, benchPatience)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		info, err := queue.Info(ctx)
		if err != nil {
			return fmt.Errorf("the last batches are not settled: %w", err)
		}
		if info.State.Msgs == 0 {
			return nil
		}
		<-tick.C
	}
}

// latency publishes batches of one recipient, each when the one before is
// settled.
func (h *benchRun) latency(ctx context.Context, queue jetstream.Stream, ended <-chan struct{}) error {
	var took []time.Duration
	for i := range h.samples {
		first := h.settled.next()
		began := time.Now()
		if _, err := h.put(ctx, fmt.Sprintf("one-%d", i), []string{fmt.Sprintf("single%07d@domain%03d.test", i, i%h.domains)}, nil); err != nil {
			return fmt.Errorf("publish: %w", err)
		}
		select {
		case at := <-first:
			took = append(took, at.Sub(began))
		case <-ended:
			return errors.New("the worker ended")
		case <-time.After(benchPatience):
			return fmt.Errorf("a batch of one recipient was not sent within %s", benchPatience)
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := h.awaitEmpty(ctx, queue); err != nil {
			return err
		}
	}
	slices.Sort(took)
	h.result.LatencyP50 = milliseconds(took[len(took)/2])
	h.result.LatencyP99 = milliseconds(took[len(took)*99/100])
	return nil
}

// account looks whether everybody was accepted: else the figures are not of what
// was asked for.
func (h *benchRun) account(ctx context.Context) error {
	campaigns := campaign.New(h.js, h.names, campaign.Options{})
	want := h.recipients + h.samples
	status, err := campaigns.Status(ctx, benchCampaign)
	if err != nil {
		return err
	}
	if status.Outcomes.Accepted == want && status.Outcomes.Final() == want {
		return nil
	}
	others := slices.DeleteFunc(subjects.Statuses(), func(s subjects.Status) bool { return s == subjects.Accepted })
	why := "nothing"
	for o, err := range campaigns.Outcomes(ctx, benchCampaign, campaign.Filter{Status: others}) {
		if err != nil {
			return err
		}
		why = strings.TrimSpace(fmt.Sprintf("%d %s %s", o.Code, o.Enhanced, o.Text))
		break
	}
	return fmt.Errorf("the relay accepted %s of %s, the first other was given: %s", number(status.Outcomes.Accepted), count(want, "recipient", "recipients"), why)
}

// A benchMeter counts what a relay has answered.
type benchMeter struct {
	recipients, envelopes atomic.Int64

	mu   sync.Mutex // guards what follows
	goal int64
	done chan struct{}  // closed when recipients reaches goal; nil: nobody waits
	one  chan time.Time // told when the next envelope was answered; nil: nobody waits

	awaited atomic.Bool // done or one is not nil
}

// reached is closed when so many recipients have a verdict.
func (m *benchMeter) reached(recipients int64) <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.goal, m.done = recipients, make(chan struct{})
	m.awaited.Store(true)
	done := m.done
	if m.recipients.Load() >= m.goal {
		close(m.done)
		m.done = nil
	}
	return done
}

// next is told when the next envelope is answered.
func (m *benchMeter) next() <-chan time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.one = make(chan time.Time, 1)
	m.awaited.Store(true)
	return m.one
}

func (m *benchMeter) add(recipients int) {
	now := time.Now()
	m.envelopes.Add(1)
	n := m.recipients.Add(int64(recipients))
	if !m.awaited.Load() {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.done != nil && n >= m.goal {
		close(m.done)
		m.done = nil
	}
	if m.one != nil {
		m.one <- now
		m.one = nil
	}
	m.awaited.Store(m.done != nil || m.one != nil)
}

// metered is a relay whose answers are counted.
type metered struct {
	relay.Dialer
	meter *benchMeter
}

func (d metered) Dial(ctx context.Context) (relay.Session, error) {
	s, err := d.Dialer.Dial(ctx)
	if err != nil {
		return nil, err
	}
	return meteredSession{s, d.meter}, nil
}

type meteredSession struct {
	relay.Session
	meter *benchMeter
}

func (s meteredSession) Send(ctx context.Context, e *smtp.Envelope, next func() *smtp.Envelope) error {
	err := s.Session.Send(ctx, e, next)
	answered := 0
	for i := range e.Results {
		if e.Results[i].Status != smtp.NotAttempted {
			answered++
		}
	}
	if answered > 0 {
		s.meter.add(answered)
	}
	return err
}

// seconds are d to the microsecond.
func seconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1e6 }

// milliseconds are d to the microsecond.
func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1e3 }

// cpuTime is what this process has used.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// maxRSS is the most memory that this process had resident. What getrusage says
// on Linux includes the process that started this one.
func maxRSS() int64 {
	if status, err := os.ReadFile("/proc/self/status"); err == nil {
		for lines := bufio.NewScanner(bytes.NewReader(status)); lines.Scan(); {
			if peak, ok := strings.CutPrefix(lines.Text(), "VmHWM:"); ok {
				kilobytes, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(peak), " kB"), 10, 64)
				if err == nil {
					return kilobytes << 10
				}
			}
		}
	}
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return u.Maxrss << 10
}
