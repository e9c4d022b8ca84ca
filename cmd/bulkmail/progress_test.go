package main

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"
)

func TestProgressWithoutATerminalIsALineNowAndThen(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		p := newProgress(&out, "final", 2000)
		p.set(1, "too early")
		time.Sleep(plainEvery)
		p.set(1200, "1,200 accepted")
		p.set(1300, "too early again")
		time.Sleep(plainEvery)
		p.set(1200, "nothing new")
		p.set(1500, "")
		p.end(2000, "2,000 accepted")
		want := "final 1,200 of 2,000, 1,200 accepted\nfinal 1,500 of 2,000\nfinal 2,000 of 2,000, 2,000 accepted\n"
		if out.String() != want {
			t.Errorf("shown is\n%s", out.String())
		}
	})
	var out strings.Builder
	newProgress(&out, "published", 0).end(7, "") // of an unknown number
	if out.String() != "published 7\n" {
		t.Errorf("shown is\n%s", out.String())
	}
}

func TestABarFitsItsTerminal(t *testing.T) {
	t.Parallel()
	for _, width := range []int{10, 40, 60, 80, 100, 200} {
		for _, n := range []int{0, 33_656, 50_000, 60_000} {
			for _, note := range []string{"", "33,000 accepted", "33,000 accepted, 400 rejected, 12,256 deferred so far, 7 in_doubt"} {
				line := barLine(width, "final", n, 50_000, note)
				if got := utf8.RuneCountInString(line); got >= width {
					t.Errorf("%d columns of %d: %q", got, width, line)
				}
			}
		}
	}
	for width, want := range map[int]string{
		120: "final 33,656 of 50,000  [================--------]   67 %  33,000 accepted, 400 rejected",
		80:  "final 33,656 of 50,000  [=============-------]   67 %  33,000 accepted, 400 re…",
		50:  "final 33,656 of 50,000   67 %  33,000 accepted, …",
	} {
		if got := barLine(width, "final", 33_656, 50_000, "33,000 accepted, 400 rejected"); got != want {
			t.Errorf("%d columns: %q", width, got)
		}
	}
	if got := barLine(80, "published", 7, 0, ""); got != "published 7" {
		t.Errorf("of an unknown number: %q", got)
	}
}
