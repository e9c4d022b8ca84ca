package smtp

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// chunks is a replySource that gives a few bytes at a time.
type chunks struct {
	data []byte
	size int
}

func (c *chunks) Read(p []byte) (int, error) {
	if len(c.data) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), c.size)], c.data)
	c.data = c.data[n:]
	return n, nil
}

func (c *chunks) SetReadDeadline(time.Time) error { return nil }

func FuzzReply(f *testing.F) {
	for _, seed := range []string{
		"250 ok\r\n", "250\r\n", "250-a\r\n250 b\r\n", "250-a\n550 b\n", "220 2.0.0 x\r\n", "550 5.1.1\r\n", "2x0 no\r\n",
		"250 \x00\xff\r\n", "354 go\r\n250 queued\r\n", "250-2.1.5 a\r\n250-2.1.5\r\n250 2.1.5 b\r\n", "25", "250 5.1234.1 x\r\n",
	} {
		f.Add([]byte(seed), uint8(3))
	}
	f.Fuzz(func(t *testing.T, data []byte, size uint8) {
		read := func(size int) (got []Reply, err error) {
			rr := replyReader{src: &chunks{bytes.Clone(data), size}, buf: make([]byte, 16)}
			for {
				a, err := rr.next(time.Second)
				if err != nil {
					return got, err
				}
				got = append(got, *a.reply(cmdRCPT))
			}
		}
		got, err := read(int(size) + 1)
		if errors.Is(err, io.EOF) {
			// Every line with an end has been read.
			lines := bytes.Count(data, []byte("\n"))
			if len(got) > lines {
				t.Fatalf("%d replies in %d lines", len(got), lines)
			}
		}
		for _, r := range got {
			if r.Code < 100 || r.Code > 999 {
				t.Errorf("code %d", r.Code)
			}
			if !utf8.ValidString(r.Text) || strings.ContainsFunc(r.Text, func(c rune) bool { return c < ' ' || c == 0x7f }) {
				t.Errorf("text %q is not fit to print", r.Text)
			}
			if r.Enhanced != "" && (strings.Count(r.Enhanced, ".") != 2 || len(r.Enhanced) > len("5.123.123")) {
				t.Errorf("enhanced %q", r.Enhanced)
			}
		}
		// What was said does not depend on how it was cut into segments.
		again, err2 := read(len(data) + 1)
		if len(again) != len(got) || (err == nil) != (err2 == nil) {
			t.Fatalf("%v, %v in pieces, %v, %v at once", got, err, again, err2)
		}
		for i := range got {
			if got[i] != again[i] {
				t.Errorf("%v in pieces, %v at once", got[i], again[i])
			}
		}
	})
}

func FuzzCapabilities(f *testing.F) {
	for _, seed := range []string{
		"mx\nPIPELINING\nSIZE 100\nAUTH PLAIN LOGIN\nLIMITS RCPTMAX=5 MAILMAX=7",
		"mx\nsize\nauth=LOGIN\nlimits rcptmax=0 RCPTDOMAINMAX=1",
		"mx\nSIZE -1\nSIZE 99999999999999999999\nLIMITS RCPTMAX=1234567",
		"", "mx", "\n\n \n", "mx\nAUTH\nSTARTTLS x\n8BITMIME\nSMTPUTF8\nDSN\nCHUNKING\nENHANCEDSTATUSCODES",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c := parseCapabilities(text)
		for name, n := range map[string]int{"RCPTMAX": c.MaxRecipients, "MAILMAX": c.MaxMessages, "RCPTDOMAINMAX": c.MaxDomains} {
			if n < 0 || n > 999999 {
				t.Errorf("%s=%d", name, n)
			}
		}
		if c.Size < 0 || c.Size > 0 && !c.SizeOffered {
			t.Errorf("SIZE %d, offered %v", c.Size, c.SizeOffered)
		}
		if len(c.Lines) > strings.Count(text, "\n") {
			t.Errorf("%d lines of %q", len(c.Lines), text)
		}
		for i, m := range c.Auth {
			for _, other := range c.Auth[:i] {
				if m == other {
					t.Errorf("%s twice", m)
				}
			}
		}
	})
}

func TestLimitsOfRFC9422AreRead(t *testing.T) {
	t.Parallel()
	c := parseCapabilities("mx\nlimits RCPTMAX=100 mailmax=20 RCPTDOMAINMAX=1 XFOO=7\nSIZE 1000")
	if c.MaxRecipients != 100 || c.MaxMessages != 20 || c.MaxDomains != 1 || c.Size != 1000 {
		t.Errorf("%+v", c)
	}
}

func TestAnEndlessReplyIsCutOff(t *testing.T) {
	t.Parallel()
	rr := replyReader{src: &chunks{bytes.Repeat([]byte("250-and so on and so on and so on\r\n"), 20000), 4096}, buf: make([]byte, readBuffer)}
	if _, err := rr.next(time.Second); !errors.Is(err, errReplySize) {
		t.Errorf("%v, want %v", err, errReplySize)
	}
	if cap(rr.text) > 2*maxReply || len(rr.buf) > 2*maxLine {
		t.Errorf("it held %d and %d bytes", cap(rr.text), len(rr.buf))
	}
}
