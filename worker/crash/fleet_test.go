//go:build crash

package crash_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"bulkmail/subjects"
)

// A point is where a worker is when it is killed.
type point string

const (
	beforeMAIL         point = "before MAIL"
	betweenRCPTAndDATA point = "between RCPT and DATA"
	inTheBody          point = "during the body"
	afterAnnouncement  point = "after the announcement, before the dot" // IN_DOUBT=skip
	afterTheDot        point = "after the dot, before the reply"
	afterTheReply      point = "after the reply, before the record"
	whileRecorded      point = "recorded, but not yet confirmed"
	afterTheRecord     point = "after the record, before the ack"
	atRandom           point = "at random"
)

// Times of the workers under test.
const (
	ackWait    = 2 * time.Second
	retryDelay = time.Second
)

// A kill is the end of a worker.
type kill struct {
	*process
	point point
}

// missed says that the worker was further than meant when it died.
func (k *kill) missed() { k.point = afterTheDot }

// A fleet is worker processes. Each has a name that it says in its EHLO, and a
// proxy to each broker.
type fleet struct {
	t         testing.TB
	sink      *sink
	upstreams []string // host:port of the brokers
	env       []string
	dir       string // of logs
	hits      chan *kill

	mu    sync.Mutex // guards what follows
	all   []*process
	armed point // where the next worker is killed
}

// A process is one worker, until it dies.
type process struct {
	name    string
	program string // the binary
	cmd     *exec.Cmd
	proxies []*proxy
	exited  chan struct{}
	err     error // of Wait; after exited

	killed time.Time // zero: it lives, or ended by itself; guarded by the fleet's mu
	gone   bool
}

func newFleet(t testing.TB, s *sink, upstreams []string, env ...string) *fleet {
	f := &fleet{t: t, sink: s, upstreams: upstreams, env: env, dir: t.TempDir(), hits: make(chan *kill, 1)}
	s.at = f.at
	t.Cleanup(f.end)
	return f
}

// startWorker starts a worker; env is added to the fleet's.
func (f *fleet) startWorker(env ...string) *process {
	f.t.Helper()
	return f.hireOf(program, env...)
}

// hireOf starts a worker of the given release.
func (f *fleet) hireOf(program string, env ...string) *process {
	f.t.Helper()
	f.mu.Lock()
	p := &process{name: fmt.Sprintf("w%d.test", len(f.all)), program: program, exited: make(chan struct{})}
	f.all = append(f.all, p)
	f.mu.Unlock()
	var brokers []string
	for _, upstream := range f.upstreams {
		x := openProxy(f.t, upstream, func(subject string, payload []byte) bool { return f.watch(p, subject, payload) })
		p.proxies = append(p.proxies, x)
		brokers = append(brokers, "nats://"+x.addr())
	}
	relay := "smtp://" + f.sink.listener.Addr().String() + "?" + url.Values{
		"name": {"sink"}, "domain": {p.name}, "tls": {"none"}, "envelope_limit": {"5"},
	}.Encode()
	log, err := os.Create(filepath.Join(f.dir, p.name+".log"))
	if err != nil {
		f.t.Fatal(err)
	}
	p.cmd = exec.Command(p.program, "worker")
	p.cmd.Stderr = log
	p.cmd.Dir = f.dir
	p.cmd.Env = append([]string{
		"HOME=" + f.dir, "TMPDIR=" + os.TempDir(), "BULKMAIL_CI_RUN=" + os.Getenv("BULKMAIL_CI_RUN"),
		"BULKMAIL_NATS_URL=" + strings.Join(brokers, ","),
		"BULKMAIL_RELAYS=" + relay,
		"BULKMAIL_HTTP=",
		"BULKMAIL_LOG_FORMAT=text",
		"BULKMAIL_ACK_WAIT=" + ackWait.String(),
		"BULKMAIL_RETRY_DELAYS=" + retryDelay.String(),
	}, slices.Concat(f.env, env)...)
	if err := p.cmd.Start(); err != nil {
		f.t.Fatal(err)
	}
	_ = log.Close()
	go func() {
		p.err = p.cmd.Wait()
		close(p.exited)
		for _, x := range p.proxies {
			x.close()
		}
	}()
	return p
}

// kill is kill -9. It returns nil if the worker is dead already, else when it
// is.
func (f *fleet) kill(p *process, at point) *kill {
	f.mu.Lock()
	if p.gone {
		f.mu.Unlock()
		return nil
	}
	p.gone, p.killed = true, time.Now()
	f.mu.Unlock()
	if err := p.cmd.Process.Kill(); err != nil {
		f.t.Errorf("kill %s: %v", p.name, err)
	}
	<-p.exited
	return &kill{process: p, point: at}
}

// dismiss ends a worker by SIGTERM and waits for it.
func (f *fleet) dismiss(p *process) {
	f.t.Helper()
	f.mu.Lock()
	gone := p.gone
	p.gone = true
	f.mu.Unlock()
	if gone {
		return
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		f.t.Errorf("%s ended by itself: %v", p.name, err)
	}
	select {
	case <-p.exited:
		if p.err != nil {
			f.t.Errorf("%s ended with: %v", p.name, p.err)
		}
	case <-time.After(waitAtMost):
		f.t.Errorf("%s does not end", p.name)
		_ = p.cmd.Process.Kill()
		<-p.exited
	}
}

// dismissAll ends all workers that live.
func (f *fleet) dismissAll() {
	f.t.Helper()
	for _, p := range f.living() {
		f.dismiss(p)
	}
}

// end leaves no process behind.
func (f *fleet) end() {
	for _, p := range f.living() {
		f.kill(p, atRandom)
	}
	if f.t.Failed() || os.Getenv("BULKMAIL_CRASH_LOGS") != "" {
		keep := filepath.Join(os.TempDir(), "bulkmail-crash-logs")
		_ = os.RemoveAll(keep)
		if err := os.CopyFS(keep, os.DirFS(f.dir)); err == nil {
			f.t.Logf("logs of the workers: %s", keep)
		}
	}
}

// living returns the workers that live.
func (f *fleet) living() []*process {
	f.mu.Lock()
	defer f.mu.Unlock()
	var list []*process
	for _, p := range f.all {
		if !p.gone {
			list = append(list, p)
		}
	}
	return list
}

// cut parts a worker from all brokers without closing a connection.
func (p *process) cut() {
	for _, x := range p.proxies {
		x.cut()
	}
}

// mend ends a cut.
func (p *process) mend() {
	for _, x := range p.proxies {
		x.mend()
	}
}

// pid is what the worker is called in the journals.
func (p *process) pid() string { return strconv.Itoa(p.cmd.Process.Pid) }

// signal sends a signal to a worker that lives.
func (f *fleet) signal(p *process, s syscall.Signal) {
	f.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		f.t.Fatalf("%s: %v", p.name, err)
	}
}

// killAny kills a worker wherever it is.
func (f *fleet) killAny() *kill {
	list := f.living()
	return f.kill(list[rand.IntN(len(list))], atRandom)
}

// arm has the first worker that comes to the point killed there.
func (f *fleet) arm(at point) {
	f.mu.Lock()
	f.armed = at
	f.mu.Unlock()
}

// at is where a worker is: the sink and the proxies say it.
func (f *fleet) at(worker string, at point) *kill {
	f.mu.Lock()
	if f.armed != at {
		f.mu.Unlock()
		return nil
	}
	p := f.find(worker)
	if p == nil || p.gone {
		f.mu.Unlock()
		return nil
	}
	f.armed = ""
	f.mu.Unlock()
	k := f.kill(p, at)
	if k == nil {
		f.arm(at) // somebody else killed it just now
		return nil
	}
	f.hits <- k
	return k
}

// find returns the process of that name. The caller holds mu.
func (f *fleet) find(worker string) *process {
	number, _, _ := strings.Cut(strings.TrimPrefix(worker, "w"), ".")
	n, err := strconv.Atoi(number)
	if err != nil || n >= len(f.all) {
		return nil
	}
	return f.all[n]
}

// excuse excuses what killed workers had in flight.
func (f *fleet) excuse(tx transaction) excuse {
	f.mu.Lock()
	defer f.mu.Unlock()
	if p := f.find(tx.worker); p != nil && !p.killed.IsZero() {
		return inFlight
	}
	return none
}

// names returns the name of each worker by what it is called in the journals.
func (f *fleet) names() map[string]string {
	f.mu.Lock()
	defer f.mu.Unlock()
	names := make(map[string]string)
	for _, p := range f.all {
		names[p.pid()] = p.name
	}
	if len(names) != len(f.all) {
		f.t.Fatal("two workers had the same process id")
	}
	return names
}

// watch sees what a worker publishes.
func (f *fleet) watch(p *process, subject string, payload []byte) (pass bool) {
	switch {
	case strings.HasPrefix(subject, "bulkmail.outcomes."):
		var e subjects.Entry
		if err := json.Unmarshal(payload, &e); err != nil {
			f.t.Errorf("%s wrote the journal entry %q: %v", p.name, payload, err)
			return true
		}
		if e.Event == subjects.Sending {
			f.at(p.name, afterAnnouncement) // what it says is on its way, and arrives
			return true
		}
		for _, r := range e.Results {
			if r.Status == subjects.Accepted {
				if f.at(p.name, afterTheReply) != nil {
					return false
				}
				f.at(p.name, whileRecorded)
				break
			}
		}
	case strings.HasPrefix(subject, "$JS.ACK.") && string(payload) == "+ACK":
		return f.at(p.name, afterTheRecord) == nil
	}
	return true
}
