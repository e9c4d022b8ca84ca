package sink_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"strings"
	"testing"
	"time"

	"bulkmail/relay/sink"
)

// start runs a sink until the test ends.
func start(t testing.TB, opts sink.Options, rules ...string) *sink.Server {
	t.Helper()
	opts.Rules = parse(t, rules...)
	s, err := sink.Start(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := s.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return s
}

func parse(t testing.TB, rules ...string) []sink.Rule {
	t.Helper()
	parsed, err := sink.ParseRules(rules...)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

// A client speaks to the sink word by word.
type client struct {
	testing.TB
	*textproto.Conn
	tcp *net.TCPConn
}

func dial(t testing.TB, s *sink.Server) *client {
	t.Helper()
	c, err := net.Dial("tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	return &client{TB: t, Conn: textproto.NewConn(c), tcp: c.(*net.TCPConn)}
}

// greeted is a client that has said EHLO.
func greeted(t testing.TB, s *sink.Server) *client {
	t.Helper()
	c := dial(t, s)
	c.expect("220")
	c.say("EHLO client.test")
	c.expect("250")
	return c
}

// say writes lines in one go.
func (c *client) say(lines ...string) {
	c.Helper()
	if _, err := io.WriteString(c.tcp, strings.Join(lines, "\r\n")+"\r\n"); err != nil {
		c.Fatal(err)
	}
}

// expect reads a reply for each prefix, "451 4.2.0 later" or "250".
func (c *client) expect(prefixes ...string) {
	c.Helper()
	for _, want := range prefixes {
		if got := c.reply(); !strings.HasPrefix(got, want) {
			c.Fatalf("reply is %q, want %q", got, want)
		}
	}
}

func (c *client) reply() string {
	c.Helper()
	code, text, err := c.ReadResponse(0)
	if err != nil && code == 0 {
		c.Fatalf("no reply: %v", err)
	}
	return fmt.Sprintf("%d %s", code, text)
}

// expectEnd reads to the end of the connection.
func (c *client) expectEnd() {
	c.Helper()
	if line, err := c.ReadLine(); !errors.Is(err, io.EOF) {
		c.Fatalf("connection goes on: %q, %v", line, err)
	}
}

// send offers one message to the recipients in one group, and returns the
// replies to RCPT and the one to the dot.
func (c *client) send(from string, recipients ...string) (rcpt []string, dot string) {
	c.Helper()
	c.say("MAIL FROM:<" + from + ">")
	c.expect("250")
	for _, r := range recipients {
		c.say("RCPT TO:<" + r + ">")
		rcpt = append(rcpt, c.reply())
	}
	c.say("DATA")
	c.expect("354")
	c.say("Subject: t", "", "..dots", ".")
	return rcpt, c.reply()
}
