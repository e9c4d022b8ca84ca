package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"bulkmail/relay/sink"
)

func TestRelaysFilesChangeUnderLoadAndEverybodyIsSentToOnce(t *testing.T) {
	t.Parallel()
	arrived := newTally()
	sinks := make(map[string]*sink.Server)
	entry := func(name string, more ...string) string {
		if sinks[name] == nil {
			server, err := sink.Start(sink.Options{Recorder: arrived.record, Delay: 15 * time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := server.Close(context.WithoutCancel(t.Context())); err != nil {
					t.Error(err)
				}
			})
			sinks[name] = server
		}
		host, port, _ := net.SplitHostPort(sinks[name].Addr())
		lines := append([]string{"  - name: " + name, "host: " + host, "port: " + port, "tls: none", "domain: client.test", "max_messages_per_robin: 50"}, more...)
		return strings.Join(lines, "\n    ") + "\n"
	}
	path := filepath.Join(t.TempDir(), "relays.yaml")
	write := func(text string) {
		// As editors do: never half a file.
		if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	write("relays:\n" + entry("stays") + entry("goes"))
	c := connected(t)
	env := []string{"BULKMAIL_NATS_URL=" + c.nc.ConnectedUrl(), "BULKMAIL_RELAYS_FILE=" + path}
	w := startBulkmail(t, env, "worker")
	w.awaitLine(t, "working")
	var list []string
	for i := range 40_000 {
		list = append(list, fmt.Sprintf("r%d@d%d.test", i, i/20))
	}
	publish := startBulkmail(t, env, "publish", "--from", "news@example.com", "--message", writeFile(t, "hello.eml", "From: news@example.com\nSubject: t\n\nhi\n"),
		"--campaign", "news", "--batch-size", "200", "--wait", writeFile(t, "list.txt", strings.Join(list, "\n")))
	under := func(name string, least int64) {
		t.Helper()
		for deadline := time.Now().Add(waitAtMost); sinks[name].Counts().Accepted < least; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%d messages go over %s, waiting for %d", sinks[name].Counts().Accepted, name, least)
			}
		}
	}
	reread := func() {
		if err := w.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	under("goes", 200)

	write("relays:\n" + entry("comes") + "    envelope_limt: 10\n")
	reread()
	w.awaitLine(t, `relays not changed.*relays.yaml:8: relays\[0\].envelope_limt: unknown key`)
	under("goes", sinks["goes"].Counts().Accepted+500) // as if nothing had been written
	write("relays:\n" + entry("stays", "envelope_limit: 10", "max_messages: 1000000") + entry("comes"))
	reread()
	w.awaitLine(t, `relays changed.*added=\[comes\].*removed=\[goes\].*changed=\[stays\]`)
	gone := sinks["goes"].Counts().Accepted
	under("comes", 200)
	publish.end(t)
	w.drain(t)
	arrived.once(t, list)
	after := sinks["goes"].Counts().Accepted
	t.Logf("goes: %d when it was removed, %d in the end; stays %d, comes %d", gone, after, sinks["stays"].Counts().Accepted, sinks["comes"].Counts().Accepted)
	if after > gone+4*100 {
		t.Errorf("%d messages over a relay after it was removed, 4 sessions had at most an envelope each", after-gone)
	}
}
