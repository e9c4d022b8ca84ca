package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// smtpSink starts Postfix' smtp-sink, which is not ours. It writes down each
// transaction in a file of its own under dir.
func smtpSink(t *testing.T) (address, dir string, p *program) {
	t.Helper()
	path, err := exec.LookPath("smtp-sink")
	if err != nil {
		path, err = exec.LookPath("/usr/sbin/smtp-sink")
	}
	if err != nil {
		const missing = "smtp-sink is missing: apt-get install postfix"
		if os.Getenv("BULKMAIL_REQUIRE_PEERS") != "" {
			t.Fatal(missing)
		}
		t.Skip(missing)
	}
	dir = t.TempDir()
	args := []string{"-c", "-d", filepath.Join(dir, "transaction.")}
	if os.Geteuid() == 0 {
		args = append(args, "-u", "root") // it insists on a user to become
	}
	ctx, cancel := context.WithTimeout(t.Context(), waitAtMost)
	defer cancel()
	for {
		address = "127.0.0.1:" + fmt.Sprint(freePort(t.Fatalf))
		p = start(t, nil, path, append(args, address, "100")...)
		if listens(ctx, address, p) {
			return address, dir, p
		}
		if ctx.Err() != nil {
			t.Fatalf("smtp-sink does not listen:\n%s", p.errors())
		}
	}
}

// listens waits until a program listens on an address; it is false if the
// program ends instead.
func listens(ctx context.Context, address string, p *program) bool {
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			return conn.Close() == nil
		}
		select {
		case <-again.C:
		case <-p.exited:
			return false
		case <-ctx.Done():
			return false
		}
	}
}

func TestSMTPSinkCounts20000RecipientsAsWeDo(t *testing.T) {
	t.Parallel()
	const recipients, domains, limit = 20_000, 50, 100
	address, dir, peer := smtpSink(t)

	env := []string{"BULKMAIL_LISTEN=127.0.0.1:0", "BULKMAIL_RELAYS=smtp://" + address + "?name=postfix&domain=client.test"}
	worker := startBulkmail(t, env, "worker")
	env = append(env, "BULKMAIL_NATS_URL="+worker.awaitLine(t, `broker embedded.* url=(\S+)`))
	var list []string
	for i := range recipients {
		list = append(list, fmt.Sprintf("r%d@d%d.test", i, i%domains))
	}
	publish := startBulkmail(t, env, "publish", "--from", "news@example.com", "--message", writeFile(t, "hello.eml", "From: news@example.com\nSubject: t\n\nhi\n.dot\n"),
		"--campaign", "news", "--wait", "--json", writeFile(t, "list.txt", strings.Join(list, "\n")))
	var result struct {
		Recipients int
		Outcomes   map[string]int
	}
	if err := json.Unmarshal([]byte(publish.end(t)), &result); err != nil {
		t.Fatal(err)
	}
	if result.Recipients != recipients || result.Outcomes["accepted"] != recipients || len(result.Outcomes) != 1 {
		t.Errorf("we count %+v", result)
	}
	worker.drain(t)
	if _, err := peer.terminate(); err != nil {
		t.Fatal(err)
	}

	files, err := filepath.Glob(filepath.Join(dir, "transaction.*"))
	if err != nil {
		t.Fatal(err)
	}
	arrived := newTally()
	for _, file := range files {
		readCapture(t, file, arrived)
	}
	arrived.once(t, list)
	// Domains are a multiple of the limit, and batches are of one domain each
	// where they can be: envelopes are full.
	if want := recipients / limit; len(files) != want {
		t.Errorf("smtp-sink wrote down %d messages, %d would do", len(files), want)
	}
	if got := lastCount(t, peer.stdout.String()); got != len(files) {
		t.Errorf("smtp-sink counts %d messages and wrote down %d", got, len(files))
	}
}

// readCapture reads a transaction as smtp-sink -d writes it.
func readCapture(t *testing.T, file string, arrived *tally) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	var body []string
	for lines.Scan() {
		if recipient, ok := strings.CutPrefix(lines.Text(), "X-Rcpt-Args: <"); ok {
			recipient, _, _ = strings.Cut(recipient, ">")
			arrived.add(recipient)
		}
		if from, ok := strings.CutPrefix(lines.Text(), "X-Mail-Args: "); ok && !strings.HasPrefix(from, "<news@example.com>") {
			t.Errorf("sender is %s", from)
		}
		body = append(body, lines.Text())
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	if end := strings.Join(body[max(len(body)-4, 0):], "\n"); !strings.HasSuffix(end, "\n\nhi\n.dot") && !strings.HasSuffix(end, "\nhi\n.dot\n") {
		t.Errorf("the message ends in %q", end)
	}
}

// lastCount is the last "mesg=N" of smtp-sink -c.
func lastCount(t *testing.T, counters string) int {
	t.Helper()
	all := regexp.MustCompile(`mesg=(\d+)`).FindAllStringSubmatch(counters, -1)
	if len(all) == 0 {
		t.Fatalf("smtp-sink printed no counters: %q", counters)
	}
	n, err := strconv.Atoi(all[len(all)-1][1])
	if err != nil {
		t.Fatal(err)
	}
	return n
}
