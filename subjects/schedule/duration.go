package schedule

import (
	"fmt"
	"strings"
	"time"
)

// ParseDuration reads a duration as Go writes it, with days of 24 hours and
// weeks as well: "90s", "2h30m", "3d", "1w12h". It is positive.
func ParseDuration(s string) (time.Duration, error) {
	bad := &Error{What: "duration", Text: s, Reason: "write it like 90s, 2h30m, 3d or 1w"}
	var sum time.Duration
	rest := s
	for _, unit := range []struct {
		letter byte
		is     time.Duration
	}{{'w', 7 * 24 * time.Hour}, {'d', 24 * time.Hour}} {
		n, after := digits(rest)
		if after == rest || after == "" || after[0] != unit.letter {
			continue
		}
		if n > int(maxDuration/unit.is) {
			return 0, bad.because("it is longer than ten years")
		}
		sum += time.Duration(n) * unit.is
		rest = after[1:]
	}
	if rest != "" {
		d, err := time.ParseDuration(rest)
		if err != nil || strings.ContainsAny(rest, "+-") {
			return 0, bad
		}
		sum += min(d, 2*maxDuration)
	}
	switch {
	case s == "" || sum <= 0:
		return 0, bad
	case sum > maxDuration:
		return 0, bad.because("it is longer than ten years")
	}
	return sum, nil
}

// maxDuration is beyond what anybody means.
const maxDuration = 10 * 366 * 24 * time.Hour

// digits reads a number from the beginning of s; one too large for any use is a
// million.
func digits(s string) (n int, rest string) {
	i := 0
	for ; i < len(s) && '0' <= s[i] && s[i] <= '9'; i++ {
		n = min(10*n+int(s[i]-'0'), 1_000_000)
	}
	return n, s[i:]
}

// An Error is text that was not understood.
type Error struct {
	What   string // at, window, fuse or duration
	Text   string // as given
	Reason string // what to write
}

// Error is one line.
func (e *Error) Error() string { return fmt.Sprintf("%s %q: %s", e.What, e.Text, e.Reason) }

func (e *Error) because(reason string) *Error {
	return &Error{What: e.What, Text: e.Text, Reason: reason}
}
