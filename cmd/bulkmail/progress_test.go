package main

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
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
