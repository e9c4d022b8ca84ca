package main

import (
	"fmt"
	"io"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

// plainEvery is how often progress is told where there is no terminal.
const plainEvery = 2 * time.Second

// progress shows how far something is: a bar on a terminal, a line now and then
// elsewhere.
type progress struct {
	w     io.Writer
	label string
	total int
	last  time.Time
	shown int

	bars *mpb.Progress // nil: plain
	bar  *mpb.Bar
	note string
}

// newProgress begins to show; total 0 is unknown.
func newProgress(w io.Writer, label string, total int) *progress {
	p := &progress{w: w, label: label, total: total, last: time.Now(), shown: -1}
	if !isTerminal(w) {
		return p
	}
	p.bars = mpb.New(mpb.WithOutput(w), mpb.WithWidth(40))
	p.bar = p.bars.AddBar(int64(total),
		mpb.PrependDecorators(decor.Name(label+" "), decor.CountersNoUnit("%d of %d")),
		mpb.AppendDecorators(decor.Percentage(), decor.Any(func(decor.Statistics) string { return "  " + p.note })))
	return p
}

// set says how many are through, and a remark.
func (p *progress) set(n int, note string) {
	if p.bar != nil {
		p.note = note
		p.bar.SetCurrent(int64(n))
		return
	}
	if n != p.shown && time.Since(p.last) >= plainEvery {
		p.line(n, note)
	}
}

func (p *progress) line(n int, note string) {
	p.last, p.shown = time.Now(), n
	of := ""
	if p.total > 0 {
		of = " of " + number(p.total)
	}
	if note != "" {
		note = ", " + note
	}
	fmt.Fprintf(p.w, "%s %s%s%s\n", p.label, number(n), of, note)
}

// end shows the last state and ends the bar.
func (p *progress) end(n int, note string) {
	if p.bar == nil {
		p.line(n, note)
		return
	}
	p.note = note
	p.bar.SetTotal(int64(max(n, p.total)), false)
	p.bar.SetCurrent(int64(n))
	p.bar.Abort(false)
	p.bars.Wait()
}

// drop ends the bar where there is nothing to show.
func (p *progress) drop() {
	if p.bar != nil {
		p.bar.Abort(true)
		p.bars.Wait()
	}
}
