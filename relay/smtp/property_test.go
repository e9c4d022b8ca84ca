package smtp

import (
	"bufio"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"bulkmail/envelope"

	"pgregory.net/rapid"
)

// A fickle server answers each command with whatever comes next in its script,
// sensible or not, and keeps a record of what it took.
type fickle struct {
	pipelining bool
	lmtp       bool
	replies    []string // to MAIL, RCPT, DATA, the dot, RSET in the order they come; "" closes, "!" resets
	nested     bool     // keeps the old sender when MAIL is refused, as real servers do

	sender string
	taken  []string
	body   strings.Builder

	mu    sync.Mutex
	took  map[string]int    // recipient to number of copies it is responsible for
	under map[string]string // recipient to sender
	wrong []string          // messages that did not arrive whole
}

func (f *fickle) serve(conn net.Conn, whole string) {
	r := bufio.NewReader(conn)
	w := bufio.NewWriter(conn)
	say := func(s string) bool {
		_, _ = w.WriteString(s)
		if r.Buffered() > 0 {
			return true // answers leave together, as from a real server
		}
		return w.Flush() == nil
	}
	say("220 fickle\r\n")
	data := false
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			_ = w.Flush()
			return
		}
		line = strings.TrimSuffix(line, "\r\n")
		if data && line != "." {
			f.body.WriteString(strings.TrimPrefix(line, ".") + "\r\n")
			continue
		}
		switch verb, _, _ := strings.Cut(line, " "); verb {
		case "EHLO", "LHLO":
			if f.pipelining {
				say("250-fickle\r\n250 PIPELINING\r\n")
			} else {
				say("250 fickle\r\n")
			}
			continue
		case "QUIT":
			say("221 bye\r\n")
			return
		}
		answers := 1
		if data && f.lmtp {
			answers = len(f.taken)
		}
		copied := f.taken
		for i := range answers {
			reply := f.next(line, data)
			if reply == "" || reply == "!" {
				_ = w.Flush()
				if reply == "!" {
					_ = conn.(*net.TCPConn).SetLinger(0)
				}
				return
			}
			if !f.act(line, reply, &data, i, answers, copied, whole) || !say(reply+"\r\n") {
				return
			}
			if strings.HasPrefix(reply, "421") {
				_ = w.Flush()
				return
			}
		}
	}
}

func (f *fickle) next(line string, data bool) string {
	if len(f.replies) > 0 {
		reply := f.replies[0]
		f.replies = f.replies[1:]
		if reply != "sensible" {
			return reply
		}
	}
	switch {
	case data:
		return "250 2.0.0 queued"
	case f.nested && f.sender != "" && strings.HasPrefix(line, "MAIL"):
		return "503 5.5.1 nested MAIL command" // and RCPT goes on under the old sender
	case line == "DATA" && len(f.taken) > 0:
		return "354 go on"
	case line == "DATA":
		return "554 5.5.1 no valid recipients"
	}
	return "250 2.1.0 ok"
}

// act keeps the server's books: what it takes responsibility for is what it
// answers 2xx to the end of the data for.
func (f *fickle) act(line, reply string, data *bool, i, of int, taken []string, whole string) bool {
	yes := reply[0] == '2'
	verb, _, _ := strings.Cut(line, " ")
	path := line[strings.IndexByte(line, '<')+1:]
	path, _, _ = strings.Cut(path, ">")
	switch {
	case *data:
		if yes {
			f.mu.Lock()
			for _, to := range taken {
				if !f.lmtp || to == taken[i] {
					f.took[to]++
					f.under[to] = f.sender
				}
			}
			// A lone dot after 354 with no recipient reaches nobody.
			if len(taken) > 0 && f.body.String() != whole {
				f.wrong = append(f.wrong, f.body.String())
			}
			f.mu.Unlock()
		}
		if i == of-1 {
			*data = false
			f.sender, f.taken = "", nil
		}
	case verb == "RSET" && yes:
		f.sender, f.taken = "", nil
	case verb == "MAIL" && yes:
		f.sender, f.taken = path, nil
	case verb == "MAIL" && !f.nested:
		f.sender, f.taken = "", nil
	case verb == "RCPT" && yes:
		f.taken = append(f.taken, path)
	case verb == "DATA" && strings.HasPrefix(reply, "354"):
		*data = true
		f.body.Reset()
	}
	return true
}

// TestWhateverAServerDoes: every recipient has exactly one result; accepted is
// what the server accepted and nothing else; what the server may have accepted
// is never sent again by us as if it had not; no message leaves under another
// sender than its own.
func TestWhateverAServerDoes(t *testing.T) {
	t.Parallel()
	message := envelope.NewMessage("Subject: news\n\n.hello\n..\n")
	const whole = "Subject: news\r\n\r\n.hello\r\n..\r\n"
	rapid.Check(t, func(rt *rapid.T) {
		f := &fickle{
			pipelining: rapid.Bool().Draw(rt, "pipelining"),
			lmtp:       rapid.Bool().Draw(rt, "lmtp"),
			nested:     rapid.Bool().Draw(rt, "nested"),
			took:       map[string]int{},
			under:      map[string]string{},
			replies: rapid.SliceOfN(rapid.SampledFrom([]string{
				"sensible", "sensible", "sensible", "sensible", "sensible", "sensible", "sensible", "sensible",
				"250 ok", "250-ok\r\n250 yes", "251 forwarded", "354 go on", "421 4.3.2 down", "450 4.2.1 later",
				"451 4.3.0 no", "452 4.5.3 too many", "452 4.3.1 full", "454 Throttling failure", "500 what", "503 5.5.1 sequence",
				"530 5.7.0 auth", "550 5.1.1 no", "552 too many", "554 no", "199 odd", "999 odder", "nonsense", "250-a\r\n550 b", "", "!",
			}), 0, 40).Draw(rt, "replies"),
		}
		addr, stop := serveOnce(rt, func(conn net.Conn) { f.serve(conn, whole) })
		d := &Dialer{Addr: addr, Domain: "client.test", Tries: 1, TLS: NoTLS, LMTP: f.lmtp, Timeout: time.Second,
			Overlap:      rapid.SampledFrom([]Overlap{OverlapOff, OverlapOn, OverlapAuto}).Draw(rt, "overlap"),
			TalkAttempts: rapid.IntRange(0, 3).Draw(rt, "talk_attempts")}
		var envelopes []*Envelope
		for i := range rapid.IntRange(1, 4).Draw(rt, "envelopes") {
			e := &Envelope{From: fmt.Sprintf("sender%d@example.com", i), Message: Guarded(message, nil)}
			for r := range rapid.IntRange(1, 5).Draw(rt, "recipients") {
				e.Recipients = append(e.Recipients, envelope.To(fmt.Sprintf("e%dr%d@example.net", i, r))...)
			}
			envelopes = append(envelopes, e)
		}
		errs := make([]error, len(envelopes))
		s, err := d.Dial(t.Context())
		if err != nil {
			rt.Fatal(err)
		}
		for i, e := range envelopes {
			errs[i] = s.Send(t.Context(), e, func() *Envelope {
				if i+1 < len(envelopes) {
					return envelopes[i+1]
				}
				return nil
			})
		}
		_ = s.Close()
		stop()
		for _, wrong := range f.wrong {
			rt.Errorf("a message arrived as %q", wrong)
		}
		for i, e := range envelopes {
			f.check(rt, e, errs[i])
		}
	})
}

func (f *fickle) check(rt *rapid.T, e *Envelope, err error) {
	if len(e.Results) != len(e.Recipients) {
		rt.Fatalf("%d results for %d recipients", len(e.Results), len(e.Recipients))
	}
	verdicts := 0
	for i := range e.Recipients {
		to, r := e.Recipients[i].Mailbox, e.Results[i]
		copies := f.took[to]
		if r.Status != NotAttempted {
			verdicts++
		}
		switch r.Status {
		case Accepted:
			if copies != 1 || r.Reply.Code/100 != 2 {
				rt.Errorf("%s is accepted with %v, the server took %d copies", to, r.Reply, copies)
			}
		case InDoubt:
		case Deferred, Rejected:
			if copies != 0 {
				rt.Errorf("%s was refused with %v and taken", to, r.Reply)
			}
			if class := r.Reply.Code / 100; r.Status == Deferred && class != 4 && r.Reply.Code != 552 || r.Status == Rejected && class != 5 {
				rt.Errorf("%s: status %d with %v", to, r.Status, r.Reply)
			}
		case NotAttempted:
			if copies != 0 || r.Reply != nil {
				rt.Errorf("%s was not attempted (%v), the server took %d copies", to, r.Reply, copies)
			}
		default:
			rt.Errorf("%s is left with status %d", to, r.Status)
		}
		if sender := f.under[to]; copies > 0 && sender != e.From {
			rt.Errorf("%s got the message under %s, it was from %s", to, sender, e.From)
		}
	}
	if err == nil && verdicts == 0 {
		rt.Errorf("no error, and not one of %d recipients has a verdict", len(e.Recipients))
	}
}

func serveOnce(rt *rapid.T, handle func(net.Conn)) (addr string, stop func()) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		rt.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer func() { _ = conn.Close() }()
		handle(conn)
	})
	return l.Addr().String(), func() { _ = l.Close(); wg.Wait() }
}
