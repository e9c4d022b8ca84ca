package main

import (
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
)

func TestAWorkerTakesTheNextFreePortWhenTheDefaultOneIsTaken(t *testing.T) {
	t.Parallel()
	const address = "127.0.0.1:8080"
	if l, err := net.Listen("tcp", address); err == nil { // else somebody has it already
		defer l.Close()
	}
	path, err := exec.LookPath("bulkmail")
	if err != nil {
		t.Fatal(err)
	}
	env := []string{"PATH=" + os.Getenv("PATH"), "GORACE=" + raceOptions, "BULKMAIL_LOG_FORMAT=text", "BULKMAIL_LISTEN=127.0.0.1:0",
		"BULKMAIL_RELAYS=dummy:///dev/null?domain=client.test"}
	w, err := startProgram(t.Cleanup, t.TempDir(), env, path, "worker")
	if err != nil {
		t.Fatal(err)
	}
	advice := w.awaitLine(t, `http address taken, using the next free port.* taken=`+address+` for_health="(.*) bulkmail health"`)
	chosen := w.awaitLine(t, `http listening.* addr=(\S+)`)
	if chosen == address || advice != httpVariable+"="+chosen {
		t.Errorf("listens on %s, advises %q", chosen, advice)
	}
	w.awaitLine(t, "working")
	if out := startBulkmail(t, []string{advice}, "health", "--ready").end(t); strings.TrimSpace(out) != "ready" {
		t.Errorf("health says %q", out)
	}
	w.drain(t)
}
