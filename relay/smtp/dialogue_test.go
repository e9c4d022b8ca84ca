package smtp

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"bulkmail/envelope"
)

const dialogues = "../../testdata/dialogues"

// TestDialogues plays every server script of testdata/dialogues, whose README
// explains the format, and compares what the session makes of it.
func TestDialogues(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob(dialogues + "/*.txt")
	if err != nil || len(files) < 60 {
		t.Fatalf("%d dialogues (%v), want 60 at least", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			t.Parallel()
			d, err := readDialogue(file)
			if err != nil {
				t.Fatal(err)
			}
			d.play(t)
		})
	}
}

// A dialogue is one file: a script for each connection and what must follow.
type dialogue struct {
	dialer    map[string]string
	envelopes []*Envelope
	wires     map[string]bool // the messages, as they may arrive
	scripts   [][]step
	want      []string
	over      chan struct{} // closed when the client is done
}

type step struct {
	line int
	who  string // C or S, or "server" for what it does
	text string
}

func readDialogue(file string) (*dialogue, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	d := &dialogue{dialer: map[string]string{}, wires: map[string]bool{}, scripts: [][]step{nil}, over: make(chan struct{})}
	for i, line := range strings.Split(string(b), "\n") {
		fail := func(format string, args ...any) error {
			return fmt.Errorf("%s:%d: %s", file, i+1, fmt.Sprintf(format, args...))
		}
		if line = strings.TrimRight(line, "\r"); line == "" || line[0] == '#' {
			continue
		}
		if rest, ok := strings.CutPrefix(line, "= "); ok {
			d.want = append(d.want, rest)
			continue
		}
		key, text, ok := strings.Cut(line, ":")
		text = strings.TrimPrefix(text, " ")
		if !ok {
			return nil, fail("what is %q?", line)
		}
		switch key {
		case "dialer":
			for field := range strings.FieldsSeq(text) {
				k, v, _ := strings.Cut(field, "=")
				d.dialer[k] = v
			}
		case "envelope":
			e, err := readEnvelope(text)
			if err != nil {
				return nil, fail("%v", err)
			}
			d.wires[string(e.Message.content.Wire())] = true
			d.envelopes = append(d.envelopes, e)
		case "C", "S", "S raw", "server":
			last := len(d.scripts) - 1
			d.scripts[last] = append(d.scripts[last], step{i + 1, key, text})
		case "S many":
			count, line, _ := strings.Cut(text, " ")
			n, err := strconv.Atoi(count)
			if err != nil {
				return nil, fail("%v", err)
			}
			last := len(d.scripts) - 1
			d.scripts[last] = append(d.scripts[last], step{i + 1, "S raw", strconv.Quote(strings.Repeat(line+"\r\n", n))})
		case "connection":
			d.scripts = append(d.scripts, nil)
		default:
			return nil, fail("what is %q?", key)
		}
	}
	return d, nil
}

// readEnvelope reads "<from> <to> <to> ... key=value".
func readEnvelope(text string) (*Envelope, error) {
	e := &Envelope{}
	message := "Subject: news\n\nHello.\n.dot\n"
	fields := splitPaths(text)
	for i, field := range fields {
		if strings.HasPrefix(field, "<") {
			path, err := strconv.Unquote(`"` + strings.ReplaceAll(field[1:len(field)-1], `"`, `\"`) + `"`)
			if err != nil {
				return nil, err
			}
			if i == 0 {
				e.From = path
			} else {
				e.Recipients = append(e.Recipients, envelope.To(path)...)
			}
			continue
		}
		k, v, _ := strings.Cut(field, "=")
		switch k {
		case "recipients":
			n, _ := strconv.Atoi(v)
			for r := range n {
				e.Recipients = append(e.Recipients, envelope.To(fmt.Sprintf("r%d@example.net", r+1))...)
			}
		case "size":
			n, _ := strconv.Atoi(v)
			message = "Subject: news\n\n" + strings.Repeat("0123456789012345678901234567890123456789012345678901234567890123456789\n", n/71)
		case "8bit":
			message = "Subject: news\n\nGrüße\n"
		case "utf8":
			message = "Subject: Grüße\n\nHello.\n"
		case "envid":
			e.DSN.EnvelopeID = v
		case "ret":
			e.DSN.Return = v
		case "notify":
			e.DSN.Notify = v
		case "orcpt":
			e.DSN.OriginalRecipient = true
		case "stopped":
			e.Message.guard = func(context.Context) error { return errors.New("the campaign is paused") }
		default:
			return nil, fmt.Errorf("envelope: what is %q?", field)
		}
	}
	e.Message.content = envelope.NewMessage(message)
	return e, nil
}

// splitPaths is strings.Fields that keeps <paths with blanks> whole.
func splitPaths(text string) []string {
	var fields []string
	for text = strings.TrimSpace(text); text != ""; text = strings.TrimSpace(text) {
		end := strings.IndexByte(text, ' ')
		if text[0] == '<' {
			if end = strings.Index(text, "> "); end >= 0 {
				end++
			}
		}
		if end < 0 {
			end = len(text)
		}
		fields, text = append(fields, text[:end]), text[end:]
	}
	return fields
}

func (d *dialogue) play(t *testing.T) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for _, script := range d.scripts {
			conn, err := listener.Accept()
			if err != nil {
				return // the client needed fewer connections; the results tell
			}
			serving.Go(func() {
				p := &player{t: t, d: d, conn: conn, r: bufio.NewReader(conn)}
				defer func() { _ = p.conn.Close() }()
				p.play(script)
			})
		}
	})
	got := d.converse(t, listener.Addr().String())
	close(d.over)
	_ = listener.Close()
	serving.Wait()
	if want := strings.Join(d.want, "\n"); got != want {
		t.Errorf("got\n%s\nwant\n%s", indent(got), indent(want))
	}
}

func indent(s string) string { return "\t= " + strings.ReplaceAll(s, "\n", "\n\t= ") }

// converse is the client's side; it tells what happened in the words of the
// dialogue files.
func (d *dialogue) converse(t *testing.T, addr string) string {
	dialer := &Dialer{Addr: addr, Domain: "client.test", Tries: 1, TLS: NoTLS, TLSVerify: VerifyNever, Overlap: OverlapOff, Timeout: 10 * time.Second}
	var said []string
	if err := d.configure(dialer, &said); err != nil {
		t.Fatal(err)
	}
	var got []string
	tell := func(format string, args ...any) { got = append(got, fmt.Sprintf(format, args...)) }
	s, err := dialer.Dial(t.Context())
	tell("dial %s", tellError(err))
	if err == nil {
		for i, e := range d.envelopes {
			var next func() *Envelope
			if i+1 < len(d.envelopes) {
				next = func() *Envelope { return d.envelopes[i+1] }
			}
			err := s.Send(t.Context(), e, next)
			tell("send %s", tellError(err))
			for r, to := range e.Recipients {
				tell("%s %s", strings.Trim(strconv.QuoteToASCII(to.Mailbox), `"`), tellResult(e.Results[r]))
			}
		}
		usable := map[bool]string{true: "usable", false: "over"}[s.Usable()]
		if n := s.MaxRecipients(); n > 0 {
			usable += fmt.Sprintf(", at most %d recipients", n)
		}
		tell("session %s", usable)
		_ = s.Close()
	}
	if dialer.Overlap != OverlapOff && dialer.learnt.isRefused() {
		tell("overlap refused")
	}
	for _, line := range said {
		tell("log %s", line)
	}
	return strings.Join(got, "\n")
}

func (d *dialogue) configure(dialer *Dialer, said *[]string) error {
	for k, v := range d.dialer {
		n, _ := strconv.Atoi(v)
		switch k {
		case "lmtp":
			dialer.LMTP = true
		case "tls":
			dialer.TLS = map[string]TLSMode{"none": NoTLS, "opportunistic": Opportunistic, "required": Required, "implicit": Implicit}[v]
		case "verify":
			dialer.TLSVerify = VerifyAlways
		case "overlap":
			dialer.Overlap = map[string]Overlap{"on": OverlapOn, "off": OverlapOff, "auto": OverlapAuto}[v]
		case "talk_attempts":
			dialer.TalkAttempts = n
		case "tries":
			dialer.Tries = n
		case "time_out":
			dialer.Timeout, _ = time.ParseDuration(v)
		case "domain":
			dialer.Domain = v
		case "user":
			dialer.User = v
		case "password":
			dialer.Password = v
		case "auth":
			dialer.Auth = v
		case "auth_in_clear":
			dialer.AuthInClear = true
		case "log":
			dialer.Log = slog.New(&mbsLog{said: said})
		case "conversation":
			dialer.Conversation = func(line string) { *said = append(*said, line) }
		default:
			return fmt.Errorf("dialer: what is %q?", k)
		}
	}
	return nil
}

// mbsLog keeps Mail::Bulkmail's codes of what is logged and is no error.
type mbsLog struct {
	slog.Handler
	said *[]string
}

func (l *mbsLog) Enabled(context.Context, slog.Level) bool { return true }

func (l *mbsLog) Handle(_ context.Context, r slog.Record) error {
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "mbs" {
			*l.said = append(*l.said, a.Value.String())
		}
		return true
	})
	return nil
}

func tellError(err error) string {
	if err == nil {
		return "ok"
	}
	e, ok := errors.AsType[*Error](err)
	if !ok {
		return fmt.Sprintf("an error of type %T", err)
	}
	s := "error"
	if e.MBS != "" {
		s += " " + e.MBS
	}
	if e.Reply != nil {
		s += fmt.Sprintf(" %d to %s", e.Reply.Code, e.Reply.Command)
	}
	if e.Unwell {
		s += " unwell"
	}
	if e.Loud {
		s += " loud"
	}
	if e.RetryAfter > 0 {
		s += " again in " + e.RetryAfter.String()
	}
	return s
}

func tellResult(r Result) string {
	s, ok := map[Status]string{NotAttempted: "not attempted", Accepted: "accepted", Deferred: "deferred", Rejected: "rejected", InDoubt: "in doubt"}[r.Status]
	if !ok {
		return fmt.Sprintf("left with status %d", r.Status)
	}
	switch {
	case r.Reply == nil && r.Status != NotAttempted:
		return s + " without a reply"
	case r.Reply == nil:
		return s
	case r.Reply.Local:
		s += " by us"
	}
	s += " " + strconv.Itoa(r.Reply.Code)
	if r.Reply.Enhanced != "" {
		s += " " + r.Reply.Enhanced
	}
	return s
}
