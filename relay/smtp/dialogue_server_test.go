package smtp

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A player is the server's side of one connection.
type player struct {
	t      *testing.T
	d      *dialogue
	conn   net.Conn
	r      *bufio.Reader
	manner string // how it speaks
	strict bool   // nothing may come before it has spoken
	out    []byte
}

func (p *player) play(script []step) {
	_ = p.conn.SetDeadline(time.Now().Add(20 * time.Second))
	for _, step := range script {
		if step.who != "S" && step.who != "S raw" {
			p.flush(step)
		}
		if !p.do(step) {
			return
		}
	}
	p.flush(step{})
	// What follows is the end of the session, in whatever form.
	for {
		line, err := p.r.ReadString('\n')
		if err != nil {
			return
		}
		if line == "QUIT\r\n" {
			_, _ = io.WriteString(p.conn, "221 2.0.0 bye\r\n")
			return
		}
		p.t.Errorf("after the end of the script the client said %q", line)
	}
}

func (p *player) do(s step) bool {
	switch s.who {
	case "S":
		p.out = append(p.out, s.text+"\r\n"...)
	case "S raw":
		raw, err := strconv.Unquote(s.text)
		if err != nil {
			p.t.Errorf("line %d: %v", s.line, err)
			return false
		}
		p.out = append(p.out, raw...)
	case "C":
		return p.hear(s)
	case "server":
		return p.act(s)
	}
	return true
}

func (p *player) hear(s step) bool {
	switch s.text {
	case "(message)":
		return p.hearMessage(s)
	case "(closes)":
		if line, err := p.r.ReadString('\n'); err == nil {
			p.t.Errorf("line %d: the client said %q, it should have closed the connection", s.line, line)
		}
		return false
	}
	line, err := p.r.ReadString('\n')
	if line = strings.TrimSuffix(line, "\r\n"); err != nil || !glob(s.text, line) {
		p.t.Errorf("line %d: the client said %q (%v), want %q", s.line, line, err, s.text)
		return false
	}
	return true
}

func (p *player) hearMessage(s step) bool {
	var wire []byte
	for {
		line, err := p.r.ReadBytes('\n')
		if err != nil {
			p.t.Errorf("line %d: %v in the message", s.line, err)
			return false
		}
		if bytes.Equal(line, []byte(".\r\n")) {
			break
		}
		wire = append(wire, line...)
	}
	if !p.d.wires[string(wire)] {
		p.t.Errorf("line %d: the message came as %.200q", s.line, wire)
	}
	return true
}

func glob(pattern, s string) bool {
	if front, back, ok := strings.Cut(pattern, "*"); ok {
		return len(s) >= len(front)+len(back) && strings.HasPrefix(s, front) && strings.HasSuffix(s, back)
	}
	return pattern == s
}

func (p *player) act(s step) bool {
	words := strings.Fields(s.text)
	switch {
	case s.text == "closes":
		return false
	case s.text == "resets":
		_ = p.conn.(*net.TCPConn).SetLinger(0)
		return false
	case s.text == "hangs":
		_, _ = io.Copy(io.Discard, p.r) // until the client has had enough
		return false
	case s.text == "stalls":
		<-p.d.over
		return false
	case s.text == "starts TLS":
		conn := tls.Server(p.conn, testServerTLS(p.t))
		if err := conn.Handshake(); err != nil {
			return false // the results tell
		}
		p.conn, p.r = conn, bufio.NewReader(conn)
	case s.text == "is strict":
		p.strict = true
	case words[0] == "speaks":
		p.manner = strings.Join(words[1:], " ")
	case words[0] == "reads" && words[2] == "bytes":
		n, _ := strconv.Atoi(words[1])
		if _, err := io.CopyN(io.Discard, p.r, int64(n)); err != nil {
			p.t.Errorf("line %d: %v", s.line, err)
		}
	default:
		p.t.Errorf("line %d: server: what is %q?", s.line, s.text)
		return false
	}
	return true
}

// flush speaks what has been gathered.
func (p *player) flush(s step) {
	out := p.out
	p.out = nil
	if b, _ := p.r.Peek(p.r.Buffered()); p.strict && len(out) > 0 && len(b) > 0 {
		p.t.Errorf("before line %d: the client said %q without waiting", s.line, b)
	}
	switch p.manner {
	case "byte by byte":
		for i := range out {
			_, _ = p.conn.Write(out[i : i+1])
		}
	case "line by line":
		for line := range bytes.Lines(out) {
			_, _ = p.conn.Write(line)
		}
	default:
		_, _ = p.conn.Write(out)
	}
}
