package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"bulkmail/relay/sink"
	"bulkmail/subjects"
)

// tally counts what arrives, by recipient.
type tally struct {
	mu sync.Mutex // guards what follows
	of map[string]int
}

func newTally() *tally { return &tally{of: make(map[string]int)} }

func (c *tally) record(tx sink.Transaction) { c.add(tx.Recipients...) }

func (c *tally) add(recipients ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range recipients {
		c.of[r]++
	}
}

// once checks that each of a list arrived exactly once and nobody else did.
func (c *tally) once(t *testing.T, list []string) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	wrong := 0
	for _, r := range list {
		if c.of[r] != 1 {
			if wrong++; wrong <= 5 {
				t.Errorf("%s was sent to %d times", r, c.of[r])
			}
		}
	}
	if len(c.of) != len(list) || wrong > 0 {
		t.Errorf("%d recipients arrived, %d are in the list, %d of them not exactly once", len(c.of), len(list), wrong)
	}
}

func writeFile(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestTwoWorkerProcessesShareTheBatchesAndSendToEverybodyOnce(t *testing.T) {
	t.Parallel()
	const batches, size = 200, 20
	arrived := newTally()
	server, err := sink.Start(sink.Options{Recorder: arrived.record, Delay: 2 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	c := connected(t)
	env := []string{
		"BULKMAIL_NATS_URL=" + c.nc.ConnectedUrl(),
		"BULKMAIL_RELAYS=smtp://" + server.Addr() + "?name=primary&domain=client.test",
	}
	// Both work before there is anything to do, so that both get a share.
	first, second := startBulkmail(t, env, "worker"), startBulkmail(t, env, "worker")
	workers := map[string]int{
		first.awaitLine(t, `working.* worker=(\S+)`):  0,
		second.awaitLine(t, `working.* worker=(\S+)`): 0,
	}

	var list []string
	for i := range batches * size {
		list = append(list, fmt.Sprintf("r%d@d%d.test", i, i%7))
	}
	publish := startBulkmail(t, env, "publish", "--from", "news@example.com", "--message", writeFile(t, "hello.eml", "From: news@example.com\nSubject: t\n\nhi\n"),
		"--campaign", "news", "--batch-size", fmt.Sprint(size), "--wait", "--json", writeFile(t, "list.txt", strings.Join(list, "\n")))
	var result struct {
		Batches, Recipients int
		Outcomes            map[subjects.Status]int
	}
	if err := json.Unmarshal([]byte(publish.end(t)), &result); err != nil {
		t.Fatal(err)
	}
	if result.Batches != batches || result.Recipients != len(list) || result.Outcomes[subjects.Accepted] != len(list) {
		t.Errorf("publish says %+v", result)
	}

	arrived.once(t, list)
	states := make(map[string]*subjects.State)
	for _, m := range c.entries(t, "news") {
		_, batch := c.names.Campaign(m.Subject())
		var e subjects.Entry
		if err := json.Unmarshal(m.Data(), &e); err != nil {
			t.Fatal(err)
		}
		if states[batch] == nil {
			states[batch] = new(subjects.State)
		}
		states[batch].Fold(e, nil)
		if _, ours := workers[e.Worker]; !ours {
			t.Errorf("%s is neither of the workers %v", e.Worker, workers)
		}
		if e.Event == subjects.Done {
			workers[e.Worker]++
		}
	}
	if len(states) != batches {
		t.Errorf("%d batches have a journal", len(states))
	}
	for batch, s := range states {
		if !s.Done || s.Attempts != 1 || len(s.Results) != size {
			t.Errorf("batch %s: done %t, %d attempts, %d recipients", batch, s.Done, s.Attempts, len(s.Results))
		}
	}
	for name, n := range workers {
		if n < batches/20 {
			t.Errorf("%s did %d of %d batches", name, n, batches)
		}
	}
	first.drain(t)
	second.drain(t)
	if waiting, err := c.campaigns(discard()).Waiting(t.Context(), "news"); waiting != 0 || err != nil {
		t.Errorf("%d batches are left in the queue, %v", waiting, err)
	}
}

// entries are those of a campaign's journals.
func (c *client) entries(t *testing.T, name string) (all []jetstream.Msg) {
	t.Helper()
	filter := jetstream.OrderedConsumerConfig{FilterSubjects: []string{c.names.CampaignOutcomes(name)}}
	consumer, err := c.js.OrderedConsumer(t.Context(), c.names.OutcomesStream(), filter)
	if err != nil {
		t.Fatal(err)
	}
	messages, err := consumer.Messages()
	if err != nil {
		t.Fatal(err)
	}
	defer messages.Stop()
	for pending := uint64(1); pending > 0; {
		m, err := messages.Next(jetstream.NextMaxWait(waitAtMost))
		if err != nil {
			t.Fatal(err)
		}
		meta, err := m.Metadata()
		if err != nil {
			t.Fatal(err)
		}
		all, pending = append(all, m), meta.NumPending
	}
	return all
}
