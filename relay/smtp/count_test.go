package smtp

import (
	"bufio"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"bulkmail/envelope"

	"pgregory.net/rapid"
)

// A muddled server says one reply more, or one less, than it was asked for. What
// it thinks of each recipient is in its book.
type muddled struct {
	pipelining, lmtp bool

	at     int            // the command, from MAIL on, at which it happens
	extra  string         // what it says more; empty: it says nothing there
	refuse map[string]int // recipients that it refuses, with this code
	late   map[string]int // under LMTP those that it refuses at the end of the data

	said    int
	refused map[string]bool
	took    map[string]bool
}

func (m *muddled) serve(conn net.Conn) {
	r, w := bufio.NewReader(conn), bufio.NewWriter(conn)
	say := func(line string) {
		if m.said++; m.said == m.at {
			if m.extra == "" {
				return
			}
			_, _ = w.WriteString(m.extra + "\r\n")
		}
		_, _ = w.WriteString(line + "\r\n")
	}
	_, _ = conn.Write([]byte("220 mx.test\r\n"))
	var taken []string
	data := false
	for {
		if r.Buffered() == 0 && w.Flush() != nil {
			return
		}
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimSuffix(line, "\r\n")
		to, _, _ := strings.Cut(line[strings.IndexByte(line, '<')+1:], ">")
		switch {
		case data && line != ".":
		case data:
			data = false
			m.end(taken, say)
		case strings.HasPrefix(line, "EHLO"), strings.HasPrefix(line, "LHLO"):
			offer := "250 SIZE"
			if m.pipelining {
				offer = "250 PIPELINING"
			}
			_, _ = w.WriteString("250-mx.test\r\n" + offer + "\r\n")
		case strings.HasPrefix(line, "MAIL"):
			taken = nil
			say("250 2.1.0 ok")
		case strings.HasPrefix(line, "RCPT"):
			code := m.refuse[to]
			if code == 0 {
				taken = append(taken, to)
				say("250 2.1.5 ok")
				continue
			}
			m.refused[to] = true
			say(fmt.Sprintf("%d %d.1.1 no such user", code, code/100))
		case strings.HasPrefix(line, "DATA") && len(taken) == 0:
			say("554 5.5.1 no valid recipients")
		case strings.HasPrefix(line, "DATA"):
			data = true
			say("354 go on")
		case strings.HasPrefix(line, "QUIT"):
			return
		default:
			say("250 ok")
		}
	}
}

// end answers the end of the data: under LMTP for each recipient.
func (m *muddled) end(taken []string, say func(string)) {
	for _, to := range taken {
		code := m.late[to]
		if m.lmtp && code > 0 {
			m.refused[to] = true
			say(fmt.Sprintf("%d %d.2.1 not here", code, code/100))
			continue
		}
		m.took[to] = true
		if m.lmtp {
			say("250 2.0.0 delivered")
		}
	}
	if !m.lmtp {
		say("250 2.0.0 queued")
	}
}

// TestNoRecipientIsRefusedForAnother: whatever a server says too much or too
// little, a refusal is one that it meant for this recipient.
func TestNoRecipientIsRefusedForAnother(t *testing.T) {
	t.Parallel()
	message := envelope.NewMessage("Subject: news\n\nhello\n")
	rapid.Check(t, func(rt *rapid.T) {
		m := &muddled{
			at:      rapid.IntRange(1, 14).Draw(rt, "at"),
			extra:   rapid.SampledFrom([]string{"", "250 ok", "550 5.1.1 no such user", "450 4.2.1 later"}).Draw(rt, "extra"),
			refuse:  map[string]int{},
			late:    map[string]int{},
			refused: map[string]bool{},
			took:    map[string]bool{},

			pipelining: rapid.Bool().Draw(rt, "pipelining"),
			lmtp:       rapid.Bool().Draw(rt, "lmtp"),
		}
		var envelopes []*Envelope
		for i := range 3 {
			e := &Envelope{From: "news@example.com", Message: Guarded(message, nil)}
			for r := range rapid.IntRange(1, 4).Draw(rt, "recipients") {
				to := fmt.Sprintf("e%dr%d@example.net", i, r)
				e.Recipients = append(e.Recipients, envelope.To(to)...)
				if code := rapid.SampledFrom([]int{0, 0, 0, 550, 450}).Draw(rt, to); code > 0 {
					m.refuse[to] = code
				}
				if code := rapid.SampledFrom([]int{0, 0, 550, 450}).Draw(rt, to+" at the end"); code > 0 {
					m.late[to] = code
				}
			}
			envelopes = append(envelopes, e)
		}
		addr, stop := serveOnce(rt, m.serve)
		d := &Dialer{Addr: addr, Domain: "client.test", Tries: 1, TLS: NoTLS, Timeout: 5 * time.Second, LMTP: m.lmtp,
			Overlap: rapid.SampledFrom([]Overlap{OverlapOff, OverlapOn}).Draw(rt, "overlap")}
		s, err := d.Dial(t.Context())
		if err != nil {
			rt.Fatal(err)
		}
		d.Timeout = 50 * time.Millisecond // for the reply that does not come
		for i, e := range envelopes {
			_ = s.Send(t.Context(), e, func() *Envelope {
				if i+1 < len(envelopes) {
					return envelopes[i+1]
				}
				return nil
			})
		}
		_ = s.Close()
		stop()
		for _, e := range envelopes {
			for i := range e.Recipients {
				to, r := e.Recipients[i].Mailbox, e.Results[i]
				if (r.Status == Rejected || r.Status == Deferred) && !m.refused[to] {
					rt.Errorf("%s has %s, which was not meant for it", to, r.Reply)
				}
				if r.Status == Accepted && !m.took[to] {
					rt.Errorf("%s is accepted with %s, and the server has not got it", to, r.Reply)
				}
			}
		}
	})
}
