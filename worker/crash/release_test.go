//go:build crash

package crash_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// releaseBefore is the commit of the release before this one. Workers of both
// must get along, since a fleet is brought up to date one worker at a time.
const releaseBefore = "691ad43"

// buildRelease builds bulkmail as it was at a commit.
func buildRelease(t testing.TB, commit string) (program string) {
	t.Helper()
	dir := t.TempDir()
	tree := filepath.Join(dir, "tree")
	if err := os.Mkdir(tree, 0o755); err != nil {
		t.Fatal(err)
	}
	root := strings.TrimSpace(string(output(t, "", "git", "rev-parse", "--show-toplevel")))
	archive := filepath.Join(dir, "tree.tar")
	output(t, root, "git", "archive", "--output", archive, commit)
	output(t, tree, "tar", "-xf", archive)
	program = filepath.Join(dir, "bulkmail")
	output(t, tree, "go", "build", "-buildvcs=false", "-o", program, "./cmd/bulkmail")
	return program
}

func output(t testing.TB, dir, name string, args ...string) []byte {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, stderr.Bytes())
	}
	return out
}

func TestWorkersOfThisReleaseAndTheOneBeforeShareAQueue(t *testing.T) {
	releases := []string{buildRelease(t, releaseBefore), program}
	for _, inDoubt := range []string{"resend", "skip"} {
		t.Run("IN_DOUBT="+inDoubt, func(t *testing.T) {
			b := embedded(t)
			s := openSink(t)
			f := newFleet(t, s, []string{strings.TrimPrefix(b.URL(), "nats://")}, "BULKMAIL_IN_DOUBT="+inDoubt)
			s.open(t)
			h := join(t, []string{b.URL()}, 1)
			h.storeLarge(t)
			stop := h.load(t, 40, true)
			defer stop()
			for range 2 {
				for _, release := range releases {
					f.hireOf(release)
				}
			}
			kills := make(map[string]int)
			var killed []*kill
			for len(killed) < 60 {
				<-time.After(pace + rand.N(pace)) // kills come at random, and workers need time to begin
				k := f.killAny()
				killed = append(killed, k)
				kills[k.program]++
				f.hireOf(k.program)
			}
			stop()
			h.settle(t)
			both := h.workedOn(f)
			f.dismissAll()
			h.noDeadLetters(t)
			a := h.settleAccounts(t, inDoubt, f, f.excuse)
			a.kills[atRandom] = len(killed)
			table("two releases, killed at random", nil, "kill", a)
			a.check(t)
			if inDoubt == "skip" && a.duplicates > 0 {
				t.Errorf("%d duplicates", a.duplicates)
			}
			for i, release := range releases {
				t.Logf("release %d: %d kills, %d claims", i, kills[release], both[release])
				if both[release] == 0 {
					t.Errorf("release %d never worked", i)
				}
			}
		})
	}
}

// workedOn counts the claims of each release.
func (h *fixture) workedOn(f *fleet) map[string]int {
	names := f.names()
	f.mu.Lock()
	defer f.mu.Unlock()
	programs := make(map[string]string)
	for _, p := range f.all {
		programs[p.name] = p.program
	}
	h.ledger.mu.Lock()
	defer h.ledger.mu.Unlock()
	counts := make(map[string]int)
	for _, c := range h.ledger.claims {
		counts[programs[names[c.pid]]]++
	}
	return counts
}

// noDeadLetters sees that nobody buried a batch.
func (h *fixture) noDeadLetters(t testing.TB) {
	t.Helper()
	stream, err := h.js.Stream(t.Context(), h.names.DeadStream())
	if err != nil {
		t.Fatal(err)
	}
	if n := stream.CachedInfo().State.Msgs; n > 0 {
		t.Errorf("%d dead letters", n)
	}
}

func TestBothReleasesPublishAListOnce(t *testing.T) {
	releases := []string{buildRelease(t, releaseBefore), program}
	b := embedded(t)
	s := openSink(t)
	f := newFleet(t, s, []string{strings.TrimPrefix(b.URL(), "nats://")})
	s.open(t)
	h := join(t, []string{b.URL()}, 1)
	for _, release := range releases {
		f.hireOf(release)
	}
	dir := t.TempDir()
	list, message := filepath.Join(dir, "list"), filepath.Join(dir, "message")
	const recipients = 3000
	var lines strings.Builder
	for i := range recipients {
		fmt.Fprintf(&lines, "p%d-0@d%d.test\n", i, i%7)
	}
	for name, content := range map[string]string{
		list:    lines.String(),
		message: "From: news@example.com\r\nDate: Tue, 24 Nov 2026 10:00:00 +0000\r\nMessage-ID: <1@example.com>\r\nMIME-Version: 1.0\r\nSubject: t\r\n\r\nHello.\r\n",
	} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*waitAtMost)
	defer cancel()
	// The release before does not wait for its turn, as this one does, so they
	// publish one after the other.
	for i, release := range []string{releases[0], releases[1], releases[0]} {
		cmd := exec.CommandContext(ctx, release, "publish", "--from", "news@example.com", "--message", message, "--batch-size", "100", "--campaign", "shared", "--wait", list)
		cmd.Env = []string{"HOME=" + dir, "TMPDIR=" + os.TempDir(), "BULKMAIL_CI_RUN=" + os.Getenv("BULKMAIL_CI_RUN"), "BULKMAIL_NATS_URL=" + b.URL()}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("publication %d: %v\n%s", i, err, out)
		}
	}
	f.dismissAll()
	h.noDeadLetters(t)
	accepted := s.accepted()
	if len(accepted) != recipients {
		t.Errorf("%d of %d recipients were accepted", len(accepted), recipients)
	}
	for recipient, times := range accepted {
		if len(times) != 1 {
			t.Errorf("%s was accepted %d times", recipient, len(times))
		}
	}
	// Either release reads what both have written.
	for i, release := range releases {
		cmd := exec.CommandContext(ctx, release, "outcomes", "shared", "--status", "accepted", "--format", "json")
		cmd.Env = []string{"HOME=" + dir, "BULKMAIL_NATS_URL=" + b.URL()}
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("outcomes of release %d: %v", i, err)
		}
		n := 0
		for line := range bytes.Lines(out) {
			if !json.Valid(line) {
				t.Fatalf("release %d prints %q", i, line)
			}
			n++
		}
		if n != recipients {
			t.Errorf("release %d lists %d of %d", i, n, recipients)
		}
	}
}
