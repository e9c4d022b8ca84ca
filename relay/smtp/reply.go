package smtp

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	readBuffer = 4 << 10
	maxLine    = 64 << 10  // RFC 5321, 4.5.3.1.5 says 512; servers write more
	maxReply   = 256 << 10 // bounds what a server can make us hold
	maxText    = 1 << 10   // bounds what is kept of it for good
)

// What is no reply at all (RFC 5321, 4.2).
var (
	errNoReply     = errors.New("what the server sent is no SMTP reply")
	errCodeChanged = errors.New("the code changes within a reply of several lines")
	errReplySize   = errors.New("the server's reply is larger than any reply may be")
)

// An answer is a reply as it was read. Its text is valid until the next one is
// read, which keeps the replies that nobody asks for off the heap.
type answer struct {
	code int
	text []byte // lines joined by \n, without codes
}

func (a answer) positive() bool { return a.code >= 200 && a.code <= 299 }

// reply makes a lasting Reply of the answer.
func (a answer) reply(c command) *Reply {
	r := &Reply{Code: a.code, Command: c.String()}
	if bytes.IndexByte(a.text, '\n') < 0 {
		enhanced, rest := cutEnhanced(a.text)
		r.Enhanced, r.Text = string(enhanced), printable(rest)
		return r
	}
	var text []byte
	for line := range bytes.SplitSeq(a.text, []byte{'\n'}) {
		enhanced, rest := cutEnhanced(line)
		if r.Enhanced == "" {
			r.Enhanced = string(enhanced)
		}
		if rest = bytes.TrimSpace(rest); len(rest) > 0 {
			if len(text) > 0 {
				text = append(text, ' ')
			}
			text = append(text, rest...)
		}
	}
	r.Text = printable(text)
	return r
}

// cutEnhanced takes the enhanced status code off the front of a reply's text
// (RFC 2034, 4; RFC 3463, 2).
func cutEnhanced(text []byte) (enhanced, rest []byte) {
	if len(text) < 5 || text[0] != '2' && text[0] != '4' && text[0] != '5' || text[1] != '.' {
		return nil, text
	}
	i := 2
	for part := range 2 {
		start := i
		for i < len(text) && i-start < 3 && text[i] >= '0' && text[i] <= '9' {
			i++
		}
		if i == start {
			return nil, text
		}
		if part == 0 {
			if i == len(text) || text[i] != '.' {
				return nil, text
			}
			i++
		}
	}
	if i == len(text) {
		return text, nil
	}
	if text[i] != ' ' && text[i] != '\t' {
		return nil, text
	}
	return text[:i], text[i+1:]
}

// printable is text as it may go to logs, JSON and terminals.
func printable(text []byte) string { return whole(text[:min(len(text), maxText)]) }

// whole is printable text of any length.
func whole(text []byte) string {
	clean := true
	for _, c := range text {
		if c < ' ' || c >= 0x7f {
			clean = false
			break
		}
	}
	if clean {
		return string(text)
	}
	return strings.Map(func(r rune) rune {
		if r == '\t' {
			return ' '
		}
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return utf8.RuneError
		}
		return r
	}, strings.ToValidUTF8(string(text), string(utf8.RuneError)))
}

// A replySource is the reading half of a connection.
type replySource interface {
	Read(p []byte) (int, error)
	SetReadDeadline(t time.Time) error
}

// A replyReader reads replies. It has a deadline for each reply, not for each
// read: a server that sends a byte a minute gains nothing by it.
type replyReader struct {
	src       replySource
	buf       []byte
	r, w      int
	text      []byte         // of a reply of several lines
	armed     bool           // the deadline of the reply being awaited is set
	held      bool           // the deadline of the next reply is the writer's affair
	fills     int            // reads since the last group of commands went out
	lastWords bool           // our last write failed: what the server still says is there or will not come
	quickAck  func()         // nil where there is none
	stopped   func() bool    // the context was cancelled
	heard     func(l []byte) // nil without a conversation log
}

// next reads one reply.
func (rr *replyReader) next(timeout time.Duration) (answer, error) {
	rr.armed, rr.held = rr.held, false
	line, err := rr.line(timeout)
	if err != nil {
		return answer{}, err
	}
	code, more, text, err := parseReplyLine(line)
	if err != nil || !more {
		return answer{code, text}, err
	}
	rr.text = append(rr.text[:0], text...)
	for more {
		if line, err = rr.line(timeout); err != nil {
			return answer{}, err
		}
		var c int
		if c, more, text, err = parseReplyLine(line); err != nil {
			return answer{}, err
		}
		if c != code {
			return answer{}, fmt.Errorf("%w: %d, then %d", errCodeChanged, code, c)
		}
		if len(rr.text)+len(text) >= maxReply {
			return answer{}, errReplySize
		}
		rr.text = append(append(rr.text, '\n'), text...)
	}
	return answer{code, rr.text}, nil
}

// line returns the next line without its end. A bare LF ends a line too: there
// is nothing to smuggle in this direction, and old servers send it.
func (rr *replyReader) line(timeout time.Duration) ([]byte, error) {
	scanned := 0
	for {
		if i := bytes.IndexByte(rr.buf[rr.r+scanned:rr.w], '\n'); i >= 0 {
			end := rr.r + scanned + i
			line := rr.buf[rr.r:end]
			rr.r = end + 1
			for len(line) > 0 && line[len(line)-1] == '\r' {
				line = line[:len(line)-1]
			}
			if rr.heard != nil {
				rr.heard(line)
			}
			return line, nil
		}
		scanned = rr.w - rr.r
		if err := rr.fill(timeout); err != nil {
			return nil, err
		}
	}
}

func (rr *replyReader) fill(timeout time.Duration) error {
	switch {
	case rr.r > 0:
		rr.w = copy(rr.buf, rr.buf[rr.r:rr.w])
		rr.r = 0
	case rr.w == len(rr.buf):
		if len(rr.buf) >= maxLine {
			return errReplySize
		}
		rr.buf = append(rr.buf, make([]byte, len(rr.buf))...)
	}
	if !rr.armed {
		rr.armed = true
		if rr.lastWords {
			timeout = min(timeout, drainTimeout)
		}
		if err := rr.src.SetReadDeadline(time.Now().Add(timeout)); err != nil {
			return err
		}
		// Cancelling sets the mark first and the deadline second, so
		// one of the two is seen whatever the order.
		if rr.stopped != nil && rr.stopped() {
			return errStopped
		}
	}
	// The server has sent a part of its replies and waits, with Nagle's
	// algorithm on, for our ACK before it sends the rest.
	if rr.fills > 0 && rr.quickAck != nil {
		rr.quickAck()
	}
	rr.fills++
	n, err := rr.src.Read(rr.buf[rr.w:])
	rr.w += n
	if n > 0 {
		return nil
	}
	return err
}

// buffered tells whether the server has sent more than was asked for.
func (rr *replyReader) buffered() bool { return rr.r < rr.w }

// parseReplyLine takes one line of a reply apart (RFC 5321, 4.2).
func parseReplyLine(line []byte) (code int, more bool, text []byte, err error) {
	if len(line) < 3 || line[0] < '1' || line[0] > '9' ||
		line[1] < '0' || line[1] > '9' || line[2] < '0' || line[2] > '9' {
		return 0, false, nil, fmt.Errorf("%w: %q", errNoReply, line[:min(len(line), 50)])
	}
	code = int(line[0]-'0')*100 + int(line[1]-'0')*10 + int(line[2]-'0')
	if len(line) == 3 {
		return code, false, nil, nil
	}
	switch line[3] {
	case ' ':
		return code, false, line[4:], nil
	case '-':
		return code, true, line[4:], nil
	}
	return 0, false, nil, fmt.Errorf("%w: %q", errNoReply, line[:min(len(line), 50)])
}

// takesLeave tells whether what is buffered is a 421, which may come at any time
// (RFC 5321, 3.8).
func (rr *replyReader) takesLeave() bool { return bytes.HasPrefix(rr.buf[rr.r:rr.w], []byte("421")) }
