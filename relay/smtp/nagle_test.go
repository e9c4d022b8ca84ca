package smtp

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"bulkmail/envelope"
)

// A server with Nagle's algorithm on that writes each reply by itself waits for
// our ACK after the first, and an ACK that is delayed comes 40 ms later: with each
// envelope, which takes less than a millisecond.
func TestAServerWithNagleDoesNotStallUs(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("TCP_QUICKACK is Linux's")
	}
	addr := serve(t, func(conn net.Conn) {
		_ = conn.(*net.TCPConn).SetNoDelay(false)
		r := bufio.NewReader(conn)
		say := func(s string) { _, _ = io.WriteString(conn, s) }
		say("220 nagle\r\n")
		for data := false; ; {
			line, err := r.ReadBytes('\n')
			switch {
			case err != nil:
				return
			case data && !bytes.Equal(line, []byte(".\r\n")):
			case bytes.HasPrefix(line, []byte("EHLO")):
				say("250-nagle\r\n250 PIPELINING\r\n")
			case bytes.HasPrefix(line, []byte("DATA")):
				data = true
				say("354 go on\r\n")
			default:
				data = false
				say("250 ok\r\n")
			}
		}
	})
	message := mustMessage(t, "Subject: x\n\n"+strings.Repeat("0123456789\n", 2000))
	var to []string
	for i := range 20 {
		to = append(to, fmt.Sprintf("r%d@example.net", i))
	}
	for name, overlap := range map[string]Overlap{"off": OverlapOff, "on": OverlapOn, "auto": OverlapAuto} {
		t.Run(name, func(t *testing.T) {
			d := plainDialer(addr)
			d.Overlap = overlap
			s, err := d.Dial(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			envelopes := make([]*Envelope, 50)
			for i := range envelopes {
				envelopes[i] = &Envelope{From: "news@example.com", Recipients: envelope.To(to...), Message: Guarded(message, nil)}
			}
			stalled := 0
			for i, e := range envelopes {
				start := time.Now()
				err := s.Send(t.Context(), e, func() *Envelope {
					if i+1 < len(envelopes) {
						return envelopes[i+1]
					}
					return nil
				})
				if err != nil {
					t.Fatal(err)
				}
				if time.Since(start) >= 35*time.Millisecond {
					stalled++
				}
			}
			_ = s.Close()
			// A machine that is busy stops one now and then; the ACK would
			// stop every one.
			if stalled > len(envelopes)/2 {
				t.Errorf("%d of %d envelopes waited for an ACK", stalled, len(envelopes))
			}
		})
	}
}
