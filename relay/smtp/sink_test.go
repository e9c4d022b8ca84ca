package smtp

import (
	"crypto/tls"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// startSink runs Postfix' smtp-sink until the test ends.
func startSink(t testing.TB, args ...string) string {
	t.Helper()
	addr := freeAddr(t)
	if os.Getuid() == 0 {
		args = append(args, "-u", "nobody")
	}
	cmd := exec.Command("smtp-sink", append(args, addr, "256")...)
	var out strings.Builder
	cmd.Stderr = &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for deadline := time.Now().Add(10 * time.Second); ; {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			_ = conn.Close()
			return addr
		}
		if time.Now().After(deadline) {
			t.Fatalf("smtp-sink does not listen: %v %s", err, out.String())
		}
		time.Sleep(5 * time.Millisecond) // another process: there is no signal to wait for
	}
}

func freeAddr(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// serve runs handle for each connection until the test ends.
func serve(t testing.TB, handle func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer func() { _ = conn.Close() }()
				handle(conn)
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	return l.Addr().String()
}

// slowProxy passes everything on after a delay, in both directions.
func slowProxy(t testing.TB, to string, delay time.Duration) string {
	t.Helper()
	return serve(t, func(client net.Conn) {
		server, err := net.Dial("tcp", to)
		if err != nil {
			return
		}
		defer func() { _ = server.Close() }()
		var wg sync.WaitGroup
		wg.Go(func() { copyLate(server, client, delay) })
		copyLate(client, server, delay)
		_ = client.Close()
		wg.Wait()
	})
}

func copyLate(dst, src net.Conn, delay time.Duration) {
	type parcel struct {
		at   time.Time
		data []byte
	}
	parcels := make(chan parcel, 1024)
	var wg sync.WaitGroup
	wg.Go(func() {
		for p := range parcels {
			time.Sleep(time.Until(p.at))
			if _, err := dst.Write(p.data); err != nil {
				_ = src.Close()
			}
		}
		_ = dst.Close()
	})
	for {
		buf := make([]byte, 64<<10)
		n, err := src.Read(buf)
		if n > 0 {
			parcels <- parcel{time.Now().Add(delay), buf[:n]}
		}
		if err != nil {
			break
		}
	}
	close(parcels)
	wg.Wait()
}

// tlsProxy takes TLS off.
func tlsProxy(t testing.TB, to string) string {
	t.Helper()
	config := testServerTLS(t)
	return serve(t, func(conn net.Conn) {
		client := tls.Server(conn, config)
		server, err := net.Dial("tcp", to)
		if err != nil {
			return
		}
		defer func() { _ = server.Close() }()
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = io.Copy(server, client); _ = server.Close() })
		_, _ = io.Copy(client, server)
		_ = client.Close()
		wg.Wait()
	})
}
