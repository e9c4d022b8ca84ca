package smtp

import (
	"bytes"
	"crypto/sha256"
	"net"
	"strings"
	"sync"
	"testing"

	"bulkmail/envelope"
)

// What a server receives, after unstuffing, is the message with its line ends
// normalised and nothing else, and no message makes a second transaction.
func TestNoMessageSmuggles(t *testing.T) {
	t.Parallel()
	evil := "MAIL FROM:<evil@example.org>\r\nRCPT TO:<victim@example.net>\r\nDATA\r\nSubject: smuggled\r\n\r\nboo\r\n.\r\n"
	bodies := []string{"", ".", "..", ".\n", "a", "a\n", "\n\n\n", ".\r\n.\r\n", "x\n.", "x\n.\n.", "\x80\xff\n"}
	for _, before := range []string{"\r\n", "\n", "\r", "\r\r\n", "\n\r", "\r\n\r\n", "x\r\n"} {
		for _, dot := range []string{".", "..", ". ", ".x"} {
			for _, after := range []string{"\r\n", "\n", "\r", "\r\r\n", "\n\n"} {
				bodies = append(bodies, "first"+before+dot+after+evil)
			}
		}
	}
	for i := range 20 {
		line := []byte("01234567890123456789")
		line[i] = '.'
		bodies = append(bodies, string(line)+"\n"+string(line[i:])+"\n")
	}
	var mu sync.Mutex
	var froms []string
	var got [][sha256.Size]byte
	addr := serve(t, func(conn net.Conn) {
		willing(conn, "", nil, func(from string, wire []byte) {
			var unstuffed []byte
			for line := range bytes.Lines(wire) {
				unstuffed = append(unstuffed, bytes.TrimPrefix(line, []byte("."))...)
			}
			mu.Lock()
			defer mu.Unlock()
			froms = append(froms, from)
			got = append(got, sha256.Sum256(unstuffed))
		})
	})
	for _, overlap := range []Overlap{OverlapOff, OverlapOn} {
		froms, got = nil, nil
		d := plainDialer(addr)
		d.Overlap = overlap
		s, err := d.Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var envelopes []*Envelope
		var want [][sha256.Size]byte
		for _, body := range bodies {
			raw := "Subject: x\n\n" + body
			envelopes = append(envelopes, &Envelope{From: "news@example.com", Recipients: envelope.To("ann@example.net"), Message: Guarded(mustMessage(t, raw), nil)})
			want = append(want, sha256.Sum256([]byte(normal(raw))))
		}
		for i, e := range envelopes {
			err := s.Send(t.Context(), e, func() *Envelope {
				if i+1 < len(envelopes) {
					return envelopes[i+1]
				}
				return nil
			})
			if err != nil || e.Results[0].Status != Accepted {
				t.Fatalf("body %q: %v, %+v", bodies[i], err, e.Results)
			}
		}
		_ = s.Close()
		mu.Lock()
		if len(got) != len(bodies) {
			t.Fatalf("%d messages arrived, %d were sent", len(got), len(bodies))
		}
		for i := range got {
			if froms[i] != "news@example.com" || got[i] != want[i] {
				t.Errorf("body %q arrived as another one, from %s", bodies[i], froms[i])
			}
		}
		mu.Unlock()
	}
}

// normal is the message with CRLF for each line end, said independently of how
// package envelope does it.
func normal(raw string) string {
	raw = strings.ReplaceAll(raw, "\r\n", "\n")
	raw = strings.ReplaceAll(raw, "\r", "\n")
	if !strings.HasSuffix(raw, "\n") {
		raw += "\n"
	}
	return strings.ReplaceAll(raw, "\n", "\r\n")
}

func TestNoAddressSmuggles(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		path string
		ok   bool
	}{
		{"", true}, {"ann@example.net", true}, {`"a b"@example.net`, true}, {`"a\"b>c"@example.net`, true}, {"jörg@example.net", true},
		{"a b@example.net", false}, {"a>b@example.net", false}, {"<a@example.net", false}, {"a@example.net> SIZE=1", false},
		{"a\r\nRSET@example.net", false}, {"a\nb@example.net", false}, {"a\rb@example.net", false}, {"a\x00b@example.net", false},
		{"\"a\r\nb\"@example.net", false}, {`"a@example.net`, false}, {`a@example.net"`, false}, {`"a\`, false}, {"a\x7f@example.net", false},
		{strings.Repeat("a", 400) + "@example.net", false},
	} {
		if ok, _ := sayable(c.path); ok != c.ok {
			t.Errorf("%q: %v, want %v", c.path, ok, c.ok)
		}
	}
}
