package smtp

import (
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"bulkmail/testdata/testrun"
)

// Ten thousand connections that fail in every way leave nothing behind. Not
// parallel: it counts the process' descriptors.
func TestFailedConnectionsLeaveNoDescriptor(t *testing.T) {
	n := testrun.InFull(10000, 1000)
	var mu sync.Mutex
	turn := 0
	addr := serve(t, func(conn net.Conn) {
		mu.Lock()
		turn++
		way := turn % 6
		mu.Unlock()
		_ = conn.(*net.TCPConn).SetLinger(0) // or the machine runs out of ports
		switch way {
		case 0:
			return
		case 1:
			_, _ = io.WriteString(conn, "554 no\r\n")
		case 2:
			_, _ = io.WriteString(conn, "nonsense\r\n")
		case 3:
			_, _ = io.WriteString(conn, "220 mx\r\n")
		case 4:
			_, _ = io.WriteString(conn, "220 mx\r\n421 go\r\n")
		case 5:
			_, _ = io.WriteString(conn, "220 mx\r\n250-mx\r\n250 STARTTLS\r\n220 go\r\nno tls\r\n")
		}
		_, _ = conn.Read(make([]byte, 1))
	})
	nobody := freeAddr(t)
	before := descriptors(t)
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range n / 8 {
				d := plainDialer(addr)
				d.TLS = Required
				d.Timeout = 5 * time.Second
				if (i+w)%10 == 0 {
					d.Addr = nobody
				}
				s, err := d.Dial(t.Context())
				if err == nil {
					t.Error("one succeeded")
					_ = s.Close()
				}
			}
		})
	}
	wg.Wait()
	deadline := time.Now().Add(5 * time.Second) // the server's side closes a moment later
	after := descriptors(t)
	for ; after > before && time.Now().Before(deadline); after = descriptors(t) {
		time.Sleep(10 * time.Millisecond)
	}
	if after > before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("no /proc/self/fd here")
	}
	return len(entries)
}
