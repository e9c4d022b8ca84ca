package smtp

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"bulkmail/envelope"
)

// peersFolder is where testdata/peers/install puts what Debian cannot install
// side by side.
const peersFolder = "/opt/bulkmail-peers"

// peerProgram finds a program of a real server. Where it is missing the test is
// skipped, but not in CI, which says BULKMAIL_REQUIRE_PEERS=1.
func peerProgram(t testing.TB, name string) string {
	t.Helper()
	for _, folder := range []string{peersFolder + "/usr/sbin", "/usr/sbin", "/usr/local/sbin"} {
		if path := filepath.Join(folder, name); executable(path) {
			if os.Getuid() != 0 && name != "smtp-sink" {
				missing(t, name+" needs root to run")
			}
			return path
		}
	}
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	missing(t, name+" is missing: run testdata/peers/install")
	return ""
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode()&0o111 != 0
}

func missing(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("BULKMAIL_REQUIRE_PEERS") == "1" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// peerFolder is a folder that the users of a server can reach.
func peerFolder(t testing.TB) string {
	t.Helper()
	base := os.TempDir()
	for dir := base; dir != "/"; dir = filepath.Dir(dir) {
		if info, err := os.Stat(dir); err != nil || info.Mode()&0o001 == 0 {
			base = "/var/tmp" // TMPDIR is for root alone
			break
		}
	}
	dir, err := os.MkdirTemp(base, "bulkmail-peer-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func writeFile(t testing.TB, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// peerCommand runs with the libraries that came with the program.
func peerCommand(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	if strings.HasPrefix(name, peersFolder) {
		cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+peersFolder+"/usr/lib/x86_64-linux-gnu:"+peersFolder+"/lib/x86_64-linux-gnu")
	}
	return cmd
}

// startPeer runs a server in the foreground until the test ends.
func startPeer(t testing.TB, addr string, cmd *exec.Cmd) {
	t.Helper()
	var out bytes.Buffer
	if cmd.Stdout == nil {
		cmd.Stdout, cmd.Stderr = &out, &out
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		select {
		case <-ended:
		case <-time.After(3 * time.Second):
			_ = cmd.Process.Kill()
			<-ended
		}
	})
	awaitListener(t, addr, func() string { return out.String() })
}

func awaitListener(t testing.TB, addr string, why func() string) {
	t.Helper()
	for deadline := time.Now().Add(15 * time.Second); ; {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			_ = conn.Close()
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the server does not listen on %s: %s", addr, why())
		}
		time.Sleep(20 * time.Millisecond) // another process: there is no signal to wait for
	}
}

// mixedEnvelopes are n envelopes of 1 to most recipients. The names of the
// recipients say what the servers are told to make of them.
func mixedEnvelopes(t testing.TB, n, most int) []*Envelope {
	t.Helper()
	message := mustMessage(t, "From: news@example.com\nSubject: news\n\nHello.\n.dot\n"+strings.Repeat("0123456789abcdef\n", 200))
	envelopes := make([]*Envelope, n)
	for i := range envelopes {
		e := &Envelope{From: fmt.Sprintf("news+%d@example.com", i), Message: Guarded(message, nil)}
		for r := range 1 + i%most {
			kind := "ok"
			switch (i + 3*r) % 11 {
			case 1:
				kind = "later"
			case 2, 7:
				kind = "never"
			}
			e.Recipients = append(e.Recipients, envelope.To(fmt.Sprintf("%s-%d-%d@example.net", kind, i, r))...)
		}
		envelopes[i] = e
	}
	return envelopes
}

// sendAll sends the envelopes over so many sessions as a relay does: what was
// not attempted goes out again.
func sendAll(t testing.TB, d *Dialer, envelopes []*Envelope, sessions int) map[string]Result {
	t.Helper()
	var mu sync.Mutex
	queue := append([]*Envelope{}, envelopes...)
	results := map[string]Result{}
	sends := 0
	take := func() *Envelope {
		mu.Lock()
		defer mu.Unlock()
		if len(queue) == 0 {
			return nil
		}
		e := queue[0]
		queue = queue[1:]
		return e
	}
	settle := func(e *Envelope) {
		mu.Lock()
		defer mu.Unlock()
		sends++
		rest := &Envelope{From: e.From, Message: e.Message}
		for i, r := range e.Recipients {
			if e.Results[i].Status == NotAttempted {
				rest.Recipients = append(rest.Recipients, r)
				continue
			}
			to := r.Mailbox
			if old, ok := results[to]; ok {
				t.Errorf("%s has two results: %+v, %+v", to, old, e.Results[i])
			}
			results[to] = e.Results[i]
		}
		if len(rest.Recipients) > 0 && sends < 20*len(envelopes) {
			queue = append(queue, rest)
		}
	}
	var wg sync.WaitGroup
	for range sessions {
		wg.Go(func() {
			for range 500 { // a bound on failures
				s, err := d.Dial(t.Context())
				if err != nil {
					if e, ok := errors.AsType[*Error](err); !ok || e.Loud {
						t.Error(err)
						return
					}
					continue
				}
				for e := take(); ; {
					if e == nil {
						_ = s.Close()
						return
					}
					var following *Envelope
					err := s.Send(t.Context(), e, func() *Envelope { following = take(); return following })
					settle(e)
					if e = following; e == nil && (err != nil || !s.Usable()) {
						break
					}
					if e == nil {
						e = take()
					}
				}
				_ = s.Close()
			}
		})
	}
	wg.Wait()
	return results
}

// compare checks every recipient against its name, and those accepted against
// what the server itself has written down.
func compare(t *testing.T, envelopes []*Envelope, results map[string]Result, took map[string]int) {
	t.Helper()
	accepted := 0
	for _, e := range envelopes {
		for i := range e.Recipients {
			to := e.Recipients[i].Mailbox
			r := results[to]
			want := Accepted
			switch {
			case strings.HasPrefix(to, "later"):
				want = Deferred
			case strings.HasPrefix(to, "never"):
				want = Rejected
			}
			if r.Status != want {
				t.Errorf("%s: status %d %v, want %d", to, r.Status, r.Reply, want)
			}
			copies := 0
			if r.Status == Accepted {
				copies = 1
				accepted++
			}
			if took[to] != copies {
				t.Errorf("%s: %d copies in the server's log, %d as we know", to, took[to], copies)
			}
		}
	}
	if len(took) != accepted {
		t.Errorf("%d recipients in the server's log, %d accepted", len(took), accepted)
	}
	t.Logf("%d envelopes, %d recipients, %d accepted", len(envelopes), len(results), accepted)
}

// logged counts recipients in a server's log until there are so many.
func logged(t *testing.T, file string, pattern *regexp.Regexp, want int) map[string]int {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; {
		b, err := os.ReadFile(file)
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		took := map[string]int{}
		for _, m := range pattern.FindAllSubmatch(b, -1) {
			for to := range strings.FieldsSeq(string(m[1])) {
				took[strings.Trim(to, "<>,")]++
			}
		}
		if len(took) >= want || time.Now().After(deadline) {
			return took
		}
		time.Sleep(50 * time.Millisecond) // another process writes it
	}
}

// underTheirSender checks that no message left under the sender of another
// envelope: the number of the sender is that of its recipients. pairs has the
// sender first and the recipients second in each match.
func underTheirSender(t *testing.T, file string, pairs *regexp.Regexp) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	matches := pairs.FindAllSubmatch(b, -1)
	if len(matches) == 0 {
		t.Error("the log names no sender")
	}
	for _, m := range matches {
		for to := range strings.FieldsSeq(string(m[2])) {
			if want := "ok-" + string(m[1]) + "-"; !strings.HasPrefix(strings.Trim(to, "<>,"), want) {
				t.Errorf("%s got the message of news+%s", to, m[1])
			}
		}
	}
}

func countAccepted(results map[string]Result) int {
	n := 0
	for _, r := range results {
		if r.Status == Accepted {
			n++
		}
	}
	return n
}
