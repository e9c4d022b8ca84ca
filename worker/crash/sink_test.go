//go:build crash

package crash_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// A sink is an SMTP server that notes what it accepts, at the moment before it
// says so. Workers tell it who they are by their EHLO.
//
// Half of its sessions offer PIPELINING. A local part that begins with "never"
// is refused, one with "later" is deferred once.
type sink struct {
	listener net.Listener
	serving  sync.WaitGroup
	// at is called when a session is at a point; it returns the kill if there
	// was one.
	at func(worker string, p point) *kill
	// think is how long the reply to the final dot takes.
	think time.Duration
	// busy, if not nil, is called after the final dot of a worker's message,
	// before it is accepted.
	busy func(worker string)
	// inBody, if not nil, is called when the beginning of a large message has been
	// read, before its rest is.
	inBody func(worker string)
	// deferAll answers every RCPT with 451.
	deferAll func(recipient string) bool
	// letters says that messages have one recipient, and are kept.
	letters bool

	mu           sync.Mutex // guards what follows
	conns        map[net.Conn]struct{}
	transactions []*transaction
	deferred     map[string]bool
	changed      chan struct{} // closed when a transaction is accepted
}

// A transaction is one MAIL and what followed.
type transaction struct {
	worker     string
	begun      time.Time // MAIL
	recipients []string  // taken
	ended      time.Time // the final dot arrived
	accepted   time.Time // the moment before the 250; zero: not accepted
	lost       time.Time // the connection, in the middle of the message
	size       int
	letter     string // as it came; large ones, and what is to many, are not kept
}

// String is for failures: when it began and ended, by the wall clock.
func (tx transaction) String() string {
	const clock = "15:04:05.000"
	return fmt.Sprintf("\n%s: MAIL %s, dot %s, accepted %s, %d recipients", tx.worker,
		tx.begun.Format(clock), tx.ended.Format(clock), tx.accepted.Format(clock), len(tx.recipients))
}

// large is the size from which a message cannot be on its way in full while
// the sink has read the beginning of it.
const large = 5 << 20

func openSink(t testing.TB) *sink {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &sink{
		listener: l,
		conns:    make(map[net.Conn]struct{}),
		deferred: make(map[string]bool),
		changed:  make(chan struct{}),
		think:    10 * time.Millisecond,
		at:       func(string, point) *kill { return nil },
	}
	return s
}

// open makes the sink take connections, until the test is over.
func (s *sink) open(t testing.TB) {
	s.serving.Go(s.accept)
	t.Cleanup(s.close)
}

func (s *sink) close() {
	_ = s.listener.Close()
	s.mu.Lock()
	for c := range s.conns {
		_ = c.Close()
	}
	s.mu.Unlock()
	s.serving.Wait()
}

func (s *sink) accept() {
	for {
		c, err := s.listener.Accept()
		if err != nil {
			return
		}
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetReadBuffer(32 << 10)
		}
		s.mu.Lock()
		s.conns[c] = struct{}{}
		s.mu.Unlock()
		s.serving.Go(func() {
			defer func() {
				s.mu.Lock()
				delete(s.conns, c)
				s.mu.Unlock()
				_ = c.Close()
			}()
			x := session{sink: s, in: bufio.NewReaderSize(c, 16<<10), out: bufio.NewWriter(c), pipelining: rand.IntN(2) == 0}
			x.serve()
		})
	}
}

// accepted returns the accepted transactions of each recipient, in order.
func (s *sink) accepted() map[string][]transaction {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make(map[string][]transaction)
	for _, tx := range s.transactions {
		if !tx.accepted.IsZero() {
			for _, r := range tx.recipients {
				all[r] = append(all[r], *tx)
			}
		}
	}
	for _, list := range all {
		slices.SortFunc(list, func(a, b transaction) int { return a.accepted.Compare(b.accepted) })
	}
	return all
}

// taken tells who was taken by a RCPT, whatever came of the message.
func (s *sink) taken() map[string]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make(map[string]bool)
	for _, tx := range s.transactions {
		for _, r := range tx.recipients {
			all[r] = true
		}
	}
	return all
}

// begun returns all transactions of a worker.
func (s *sink) begun(worker string) []transaction {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []transaction
	for _, tx := range s.transactions {
		if tx.worker == worker {
			list = append(list, *tx)
		}
	}
	return list
}

// silence is the longest time within an outage in which nothing was accepted.
func (s *sink) silence(o outage) (longest time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	last := o.down
	for _, tx := range s.transactions {
		if tx.accepted.After(last) && tx.accepted.Before(o.up) {
			longest = max(longest, tx.accepted.Sub(last))
			last = tx.accepted
		}
	}
	return max(longest, o.up.Sub(last))
}

// wait waits until cond holds of the transactions.
func (s *sink) wait(t testing.TB, what string, cond func([]*transaction) bool) {
	t.Helper()
	timer := time.NewTimer(waitAtMost)
	defer timer.Stop()
	for {
		s.mu.Lock()
		ok, changed := cond(s.transactions), s.changed
		s.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-timer.C:
			t.Fatalf("the sink waited in vain for %s", what)
		}
	}
}

// tell wakes who waits. The caller holds mu.
func (s *sink) tell() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// A session is one connection to the sink.
type session struct {
	*sink
	in         *bufio.Reader
	out        *bufio.Writer
	pipelining bool
	worker     string
	tx         *transaction
}

func (x *session) serve() {
	x.say("220 sink.test ESMTP")
	for {
		if x.in.Buffered() == 0 {
			if x.out.Flush() != nil {
				x.out.Reset(io.Discard) // what has been sent to us is still read
			}
		}
		line, err := x.in.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimRight(line, "\r\n")
		verb, arg, _ := strings.Cut(line, " ")
		switch strings.ToUpper(verb) {
		case "EHLO":
			x.worker = arg
			x.sink.at(x.worker, beforeMAIL)
			if x.pipelining {
				x.say("250-PIPELINING")
			}
			x.say("250-sink.test", "250-8BITMIME", "250-ENHANCEDSTATUSCODES", "250 SIZE 50000000")
		case "MAIL":
			x.mail(arg)
		case "RCPT":
			x.rcpt(arg)
		case "DATA":
			if !x.data() {
				return
			}
		case "RSET":
			x.tx = nil
			x.say("250 2.0.0 ok")
		case "QUIT":
			x.say("221 2.0.0 bye")
			_ = x.out.Flush()
			return
		default:
			x.say("502 5.5.1 " + verb + " is not known here")
		}
	}
}

func (x *session) say(lines ...string) {
	for _, line := range lines {
		_, _ = x.out.WriteString(line + "\r\n")
	}
}

func (x *session) mail(arg string) {
	if x.tx != nil {
		x.say("503 5.5.1 one at a time")
		return
	}
	x.tx = &transaction{worker: x.worker, begun: time.Now()}
	if _, size, ok := strings.Cut(arg, "SIZE="); ok {
		size, _, _ = strings.Cut(size, " ")
		x.tx.size, _ = strconv.Atoi(size)
	}
	x.mu.Lock()
	x.transactions = append(x.transactions, x.tx)
	x.mu.Unlock()
	x.say("250 2.1.0 ok")
}

func (x *session) rcpt(arg string) {
	if x.tx == nil {
		x.say("503 5.5.1 MAIL first")
		return
	}
	_, address, _ := strings.Cut(arg, "<")
	address, _, _ = strings.Cut(address, ">")
	x.mu.Lock()
	once := strings.HasPrefix(address, "later") && !x.deferred[address]
	if once {
		x.deferred[address] = true
	}
	all := x.deferAll
	x.mu.Unlock()
	switch {
	case once, all != nil && all(address):
		x.say("451 4.2.0 later")
	case strings.HasPrefix(address, "never"):
		x.say("550 5.1.1 nobody of that name")
	default:
		x.mu.Lock()
		x.tx.recipients = append(x.tx.recipients, address)
		taken := len(x.tx.recipients)
		x.mu.Unlock()
		x.say("250 2.1.5 ok")
		if !x.pipelining && (taken == 2 || x.letters) {
			_ = x.out.Flush()
			x.sink.at(x.worker, betweenRCPTAndDATA)
		}
	}
}

// data reads a message. It reports false at the end of the connection.
func (x *session) data() bool {
	if x.pipelining {
		x.sink.at(x.worker, betweenRCPTAndDATA) // DATA has arrived, but is not answered
	}
	tx := x.tx
	if tx == nil || len(tx.recipients) == 0 {
		x.tx = nil
		x.say("554 5.5.1 no recipients")
		return true
	}
	x.say("354 go ahead")
	if x.out.Flush() != nil {
		x.out.Reset(io.Discard)
	}
	var killed *kill
	var letter strings.Builder
	for first, whole := true, true; ; first = false { // whole: the line before had its end
		line, err := x.in.ReadSlice('\n')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			x.mu.Lock()
			tx.lost = time.Now()
			x.tell()
			x.mu.Unlock()
			return false
		}
		if whole && string(line) == ".\r\n" {
			break
		}
		if x.letters && tx.size < large {
			letter.Write(line)
		}
		if first && tx.size >= large {
			killed = x.sink.at(x.worker, inTheBody)
			if x.inBody != nil {
				x.inBody(x.worker)
			}
		}
		whole = bytes.HasSuffix(line, []byte("\n"))
	}
	if killed != nil {
		killed.missed() // the whole message had left
	}
	x.mu.Lock()
	tx.ended, tx.letter = time.Now(), letter.String()
	x.mu.Unlock()
	x.sink.at(x.worker, afterTheDot)
	time.Sleep(x.think)
	if x.busy != nil {
		x.busy(x.worker)
	}
	x.mu.Lock()
	tx.accepted = time.Now()
	x.tell()
	x.mu.Unlock()
	x.tx = nil
	x.say(fmt.Sprintf("250 2.0.0 ok, %d", len(tx.recipients)))
	return true
}
