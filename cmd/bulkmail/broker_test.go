package main

import (
	"encoding/json"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"bulkmail/subjects"
	"bulkmail/subjects/broker"
	"bulkmail/subjects/broker/brokertest"
)

// startBroker starts a broker in this process.
func startBroker(t *testing.T) *broker.Server {
	t.Helper()
	return brokertest.Start(t)
}

// connected is a client with everything made on a broker of its own.
func connected(t *testing.T) *client {
	t.Helper()
	return connectedTo(t, startBroker(t).URL())
}

func connectedTo(t *testing.T, url string) *client {
	t.Helper()
	c := config{NATSURL: url, Replicas: 1, AckWait: 30 * time.Second, OutcomesMaxAge: time.Hour}
	cl, err := c.connect(t.Context(), subjects.Names{}, "test", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.nc.Close)
	return cl
}

// journal appends an entry to the journal of a batch.
func (c *client) journal(t *testing.T, campaign, batch string, e subjects.Entry) {
	t.Helper()
	data, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.js.Publish(t.Context(), c.names.Outcomes(campaign, batch), data); err != nil {
		t.Fatal(err)
	}
}

func entry(event subjects.Event, attempt int, results ...subjects.Results) subjects.Entry {
	return subjects.Entry{Time: time.Now().UTC(), Worker: "w", Attempt: attempt, Event: event, Results: results}
}

func became(status subjects.Status, relay string, recipients ...string) subjects.Results {
	return subjects.Results{Status: status, Relay: relay, Recipients: recipients}
}

func discard() *streams { return &streams{strings.NewReader(""), io.Discard, io.Discard} }

// startBulkmail starts the program itself with nothing in its environment but
// env.
func startBulkmail(t *testing.T, env []string, args ...string) *program {
	t.Helper()
	path, err := exec.LookPath("bulkmail") // see TestMain
	if err != nil {
		t.Fatal(err)
	}
	return start(t, env, path, args...)
}

func start(t *testing.T, env []string, path string, args ...string) *program {
	t.Helper()
	env = append([]string{"PATH=" + os.Getenv("PATH"), "TMPDIR=" + t.TempDir(), "GORACE=" + raceOptions, "BULKMAIL_LOG_FORMAT=text", "BULKMAIL_HTTP=127.0.0.1:0"}, env...)
	p, err := startProgram(t.Cleanup, t.TempDir(), env, path, args...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// awaitLine is await for tests without a script.
func (p *program) awaitLine(t *testing.T, line string) string {
	t.Helper()
	group, err := p.await(regexp.MustCompile(line))
	if err != nil {
		t.Fatal(err)
	}
	return group
}

// end waits for the program to end by itself and returns what it printed.
func (p *program) end(t *testing.T) string {
	t.Helper()
	select {
	case <-p.exited:
	case <-time.After(waitAtMost):
		t.Fatalf("%s has not ended:\n%s", slices.Clip(p.cmd.Args), p.errors())
	}
	if p.err != nil {
		t.Fatalf("%s: %v\n%s%s", p.cmd.Args, p.err, p.stdout.String(), p.errors())
	}
	return p.stdout.String()
}

// fails is end for a program that ends with 1, and says why.
func (p *program) fails(t *testing.T, why string) string {
	t.Helper()
	select {
	case <-p.exited:
	case <-time.After(waitAtMost):
		t.Fatalf("%s has not ended:\n%s", slices.Clip(p.cmd.Args), p.errors())
	}
	if p.cmd.ProcessState.ExitCode() != 1 || p.errors() != "bulkmail: "+why+"\n" {
		t.Errorf("%s: %v\n%s", p.cmd.Args, p.err, p.errors())
	}
	return p.stdout.String()
}

// drain ends a worker as an operator would.
func (p *program) drain(t *testing.T) {
	t.Helper()
	if code, err := p.terminate(); err != nil || code != 0 {
		t.Errorf("worker ended with %d, %v:\n%s", code, err, p.errors())
	}
}
