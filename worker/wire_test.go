package worker_test

import (
	"io"
	"net"
	"sync"
	"testing"
)

// A wire is a TCP proxy in front of the broker that can be cut.
type wire struct {
	listener net.Listener
	to       string
	running  sync.WaitGroup

	mu    sync.Mutex
	cutUp bool // new connections are refused at once
	conns []net.Conn
}

func layWire(t testing.TB, url string) *wire {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{listener: l, to: url[len("nats://"):]}
	w.running.Go(w.serve)
	t.Cleanup(func() {
		_ = l.Close()
		w.cut(true)
		w.running.Wait()
	})
	return w
}

func (w *wire) url() string { return "nats://" + w.listener.Addr().String() }

func (w *wire) serve() {
	for {
		client, err := w.listener.Accept()
		if err != nil {
			return
		}
		broker, err := net.Dial("tcp", w.to)
		w.mu.Lock()
		if err != nil || w.cutUp {
			w.mu.Unlock()
			_ = client.Close()
			if broker != nil {
				_ = broker.Close()
			}
			continue
		}
		w.conns = append(w.conns, client, broker)
		w.mu.Unlock()
		w.running.Go(func() { _, _ = io.Copy(broker, client); _ = broker.Close() })
		w.running.Go(func() { _, _ = io.Copy(client, broker); _ = client.Close() })
	}
}

// cut ends all connections, and refuses new ones while stay is true.
func (w *wire) cut(stay bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cutUp = stay
	for _, c := range w.conns {
		_ = c.Close()
	}
	w.conns = nil
}
