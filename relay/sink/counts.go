package sink

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	gosmtp "github.com/emersion/go-smtp"
)

// Counts is what a sink has seen and said since it was started.
type Counts struct {
	Connections  int64 // accepted, those refused by a CONNECT rule too
	PeakSessions int64 // the most that were open at once
	Transactions int64 // messages taken

	// Recipients: of messages taken; answered 5xx, at RCPT or for the whole
	// transaction at the final dot; the same with 4xx, where 452 for too many
	// counts too.
	Accepted, Rejected, Deferred int64

	Bytes int64 // octets of messages taken, dots unstuffed

	// Replies is how often each phase was answered how: "RCPT 451 4.2.0",
	// "DATA 250", "RCPT drop"; "DATA aborted" is a message that did not
	// reach its end.
	Replies map[string]int64
}

// String is the counts for people, several lines, the last without an end.
func (c Counts) String() string {
	var b strings.Builder
	for _, row := range []struct {
		name string
		n    int64
	}{
		{"connections", c.Connections},
		{"peak sessions", c.PeakSessions},
		{"transactions", c.Transactions},
		{"recipients accepted", c.Accepted},
		{"recipients rejected", c.Rejected},
		{"recipients deferred", c.Deferred},
		{"bytes", c.Bytes},
	} {
		fmt.Fprintf(&b, "%-20s %10d\n", row.name, row.n)
	}
	for _, reply := range slices.Sorted(maps.Keys(c.Replies)) {
		fmt.Fprintf(&b, "  %-18s %10d\n", reply, c.Replies[reply])
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// A tally is the counts as they grow. Its size depends on the rules alone.
type tally struct {
	mu      sync.Mutex // guards all below
	counts  Counts
	open    int64
	replies map[answer]int64
}

// An answer is one way in which a phase ended.
type answer struct {
	phase    Phase
	code     int
	enhanced gosmtp.EnhancedCode
	without  string // what happened in place of a reply
}

func (a answer) String() string {
	switch {
	case a.without != "":
		return fmt.Sprintf("%s %s", a.phase, a.without)
	case a.enhanced == gosmtp.NoEnhancedCode:
		return fmt.Sprintf("%s %d", a.phase, a.code)
	}
	e := a.enhanced
	return fmt.Sprintf("%s %d %d.%d.%d", a.phase, a.code, e[0], e[1], e[2])
}

// said counts a reply, nil for 250, and the n recipients that it refuses.
func (t *tally) said(phase Phase, reply *gosmtp.SMTPError, n int) {
	a := answer{phase: phase, code: 250, enhanced: gosmtp.NoEnhancedCode}
	if reply != nil {
		a.code, a.enhanced = reply.Code, reply.EnhancedCode
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.count(a)
	if a.code >= 500 {
		t.counts.Rejected += int64(n)
	} else if a.code >= 400 {
		t.counts.Deferred += int64(n)
	}
}

// without counts what happened in place of a reply.
func (t *tally) without(phase Phase, what string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.count(answer{phase: phase, without: what})
}

// took counts a message for n recipients.
func (t *tally) took(n int, size int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.counts.Transactions++
	t.counts.Accepted += int64(n)
	t.counts.Bytes += size
}

func (t *tally) connected() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.counts.Connections++
	t.open++
	t.counts.PeakSessions = max(t.counts.PeakSessions, t.open)
}

func (t *tally) disconnected() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.open--
}

// count: the caller holds mu.
func (t *tally) count(a answer) {
	if t.replies == nil {
		t.replies = map[answer]int64{}
	}
	t.replies[a]++
}

func (t *tally) snapshot() Counts {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.counts
	c.Replies = make(map[string]int64, len(t.replies))
	for a, n := range t.replies {
		c.Replies[a.String()] += n
	}
	return c
}
