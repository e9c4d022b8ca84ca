package main

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bulkmail/subjects"
	"bulkmail/subjects/campaign"
)

func TestATableAlignsFiguresToTheRight(t *testing.T) {
	t.Parallel()
	table := newTable("relay", "#accepted", "limit", "#n")
	table.row("primary", 1234567, 10, "-")
	table.row("b", 5, time.Second, "12")
	table.row("", 0, nil, "")
	var out strings.Builder
	if err := table.print(&out); err != nil {
		t.Fatal(err)
	}
	want := `relay     accepted  limit   n
primary  1,234,567  10      -
b                5  1s     12
                 0  <nil>    
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
}

func TestATableDoesNothingToTheTerminal(t *testing.T) {
	t.Parallel()
	table := newTable("relay", "last error")
	table.row("a", errors.New("421 \x1b]0;owned\a\r\nbye \u202e"))
	var out strings.Builder
	if err := table.print(&out); err != nil {
		t.Fatal(err)
	}
	want := "relay  last error\n" + `a      421 \x1b]0;owned\x07\r\nbye \u202e` + "\n"
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
}

func TestATableOfNothingIsItsHeader(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	if err := newTable("relay", "#accepted").print(&out); err != nil || out.String() != "relay  accepted\n" {
		t.Errorf("printed %q, error %v", out.String(), err)
	}
}

func TestNumbersAreWrittenInThousands(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]string{
		0: "0", 7: "7", 999: "999", 1000: "1,000", 12345: "12,345", 123456: "123,456", 1234567: "1,234,567",
		-1: "-1", -999: "-999", -1000: "-1,000", -123456: "-123,456",
	} {
		if got := number(n); got != want {
			t.Errorf("%d is written %s, want %s", n, got, want)
		}
	}
	if one, many := count(1, "batch", "batches"), count(uint64(2000), "batch", "batches"); one != "1 batch" || many != "2,000 batches" {
		t.Errorf("counted %q and %q", one, many)
	}
	if got := limit(0) + limit(1500); got != "-1,500" {
		t.Errorf("limits are %q", got)
	}
}

func TestOutcomesOnATerminalDoNothingToIt(t *testing.T) {
	t.Parallel()
	o := &campaign.Outcome{Campaign: "news", Batch: "1", Recipient: "ann@x.test", Status: subjects.Rejected, Text: "=1 \u202e\x9b31m"}
	for format, want := range map[string]string{
		"csv":  `'=1 \u202e\x9b31m`,
		"json": `"text":"=1 \u202e\ufffd31m"`,
	} {
		var out strings.Builder
		w := newOutcomeWriter(&out, format, true)
		if err := errors.Join(w.outcome(o), w.flush()); err != nil || !strings.Contains(out.String(), want) {
			t.Errorf("%s: %s, %v", format, out.String(), err)
		}
	}
}
