package worker_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"runtime"
	"runtime/metrics"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"bulkmail/relay"
	"bulkmail/subjects"
	"bulkmail/subjects/broker/brokertest"
	"bulkmail/testdata/testrun"
	"bulkmail/worker"
)

// TestMain makes this binary a worker process when a test asks for one.
func TestMain(m *testing.M) {
	if len(os.Args) == 7 && os.Args[1] == "worker" {
		if err := work(os.Args[2:], os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	testrun.AtOnce(6)
	testrun.RapidChecks(100, 30)
	goleak.VerifyTestMain(m, brokertest.LeftByNATS())
}

// work is a worker process. It answers every line on stdin with its live heap
// in bytes, and drains at its end.
func work(args []string, stdin io.Reader, stdout io.Writer) error {
	name, url, address, inDoubt := args[0], args[1], args[2], worker.InDoubt(args[3])
	nc, err := nats.Connect(url)
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	host, portText, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	port, err := strconv.Atoi(portText)
	if err != nil {
		return err
	}
	limit, err := strconv.Atoi(args[4])
	if err != nil {
		return err
	}
	relays, err := relay.FromConfig([]relay.Config{{
		Name: "sink", Kind: relay.KindSMTP, Host: host, Port: port, Domain: "worker.test",
		Tries: 1, MaxConnectionAttempts: 5, WorthlessFor: time.Minute, EnvelopeLimit: limit, EnvelopeDomains: 1,
		TalkAttempts: 1, Connections: 4, TLS: relay.TLSNone, Overlap: "off",
	}}, relay.Outlets{})
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	go func() {
		defer stop()
		for lines := bufio.NewScanner(stdin); lines.Scan(); {
			fmt.Fprintln(stdout, liveHeap())
		}
	}()
	var memory worker.Octets
	if text := os.Getenv("BULKMAIL_MESSAGE_MEMORY"); text != "" {
		if err := memory.UnmarshalText([]byte(text)); err != nil {
			return err
		}
	}
	o := worker.Options{MessageMemory: memory, Name: name, InDoubt: inDoubt, Log: slog.New(slog.DiscardHandler)}
	pool := relay.NewPool(relays, relay.Options{})
	err = worker.New(js, subjects.Names{}, pool, o).Run(ctx)
	return errors.Join(err, pool.Close(context.WithoutCancel(ctx)))
}

// liveHeap is what the last garbage collection found in use.
func liveHeap() uint64 {
	runtime.GC()
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(live)
	return live[0].Value.Uint64()
}

// A process is a worker in a process of its own.
type process struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stdout *bufio.Reader
}

func (h *house) fork(t testing.TB, name, address string, inDoubt worker.InDoubt, envelopeLimit int, environment ...string) *process {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{cmd: exec.Command(exe, "worker", name, h.url, address, string(inDoubt), strconv.Itoa(envelopeLimit))}
	p.cmd.Stderr = os.Stderr
	p.cmd.Env = append(os.Environ(), environment...)
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.stdout = bufio.NewReader(out)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if p.cmd.ProcessState == nil {
			p.kill(t)
		}
	})
	return p
}

// kill ends the process without giving it a chance to say anything.
func (p *process) kill(t testing.TB) {
	t.Helper()
	if err := p.cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = p.cmd.Wait()
}

// heap asks for the live heap.
func (p *process) heap(t testing.TB) int {
	t.Helper()
	if _, err := io.WriteString(p.stdin, "heap\n"); err != nil {
		t.Fatal(err)
	}
	line, err := p.stdout.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// drain has the process end as if it had been asked to.
func (p *process) drain(t testing.TB) {
	t.Helper()
	if err := p.stdin.Close(); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("the worker process ended with: %v", err)
	}
}
