//go:build crash

package crash_test

import (
	"bufio"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// A proxy stands between one worker and one broker. It knows what the worker
// publishes, and it can stop passing anything without closing a connection.
type proxy struct {
	listener net.Listener
	upstream string
	// watch sees what the worker publishes before the broker does, and may keep
	// it from getting there.
	watch   func(subject string, payload []byte) (pass bool)
	passing sync.WaitGroup
	ended   chan struct{}

	mu    sync.Mutex // guards what follows
	gate  chan struct{}
	conns []net.Conn
}

func openProxy(t testing.TB, upstream string, watch func(subject string, payload []byte) bool) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: l, upstream: upstream, watch: watch, ended: make(chan struct{}), gate: make(chan struct{})}
	close(p.gate)
	p.passing.Go(p.accept)
	return p
}

func (p *proxy) addr() string { return p.listener.Addr().String() }

// cut stops the passing, both ways.
func (p *proxy) cut() {
	p.mu.Lock()
	p.gate = make(chan struct{})
	p.mu.Unlock()
}

// mend ends a cut.
func (p *proxy) mend() {
	p.mu.Lock()
	close(p.gate)
	p.mu.Unlock()
}

// pass waits until there is no cut. It reports false at the end of the proxy.
func (p *proxy) pass() bool {
	p.mu.Lock()
	gate := p.gate
	p.mu.Unlock()
	select {
	case <-gate:
		return true
	case <-p.ended:
		return false
	}
}

func (p *proxy) close() {
	close(p.ended)
	_ = p.listener.Close()
	p.mu.Lock()
	for _, c := range p.conns {
		_ = c.Close()
	}
	p.mu.Unlock()
	p.passing.Wait()
}

func (p *proxy) accept() {
	for {
		down, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.passing.Go(func() {
			defer down.Close()
			if !p.pass() {
				return
			}
			up, err := net.Dial("tcp", p.upstream)
			if err != nil {
				return
			}
			defer up.Close()
			p.mu.Lock()
			p.conns = append(p.conns, down, up)
			p.mu.Unlock()
			select {
			case <-p.ended: // close did not see these
				return
			default:
			}
			var both sync.WaitGroup
			both.Go(func() {
				p.fromBroker(down, up)
				_ = down.Close()
			})
			p.toBroker(up, down)
			_ = up.Close()
			both.Wait()
		})
	}
}

func (p *proxy) fromBroker(down, up net.Conn) {
	buf := make([]byte, 32<<10)
	for {
		n, err := up.Read(buf)
		if n > 0 && p.pass() {
			if _, err := down.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// toBroker passes whole operations of the NATS protocol.
func (p *proxy) toBroker(up, down net.Conn) {
	in := bufio.NewReaderSize(down, 64<<10)
	for {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return
		}
		op := append([]byte(nil), line...)
		pass := true
		fields := strings.Fields(string(line))
		if len(fields) >= 3 && (fields[0] == "PUB" || fields[0] == "HPUB") {
			size, err := strconv.Atoi(fields[len(fields)-1])
			if err != nil {
				return
			}
			begin := len(op)
			op = append(op, make([]byte, size+2)...)
			if _, err := io.ReadFull(in, op[begin:]); err != nil {
				return
			}
			payload := op[begin : begin+size]
			if fields[0] == "HPUB" {
				header, err := strconv.Atoi(fields[len(fields)-2])
				if err != nil || header > size {
					return
				}
				payload = payload[header:]
			}
			pass = p.watch(fields[1], payload)
		}
		if !pass {
			continue
		}
		if !p.pass() {
			return
		}
		if _, err := up.Write(op); err != nil {
			return
		}
	}
}
