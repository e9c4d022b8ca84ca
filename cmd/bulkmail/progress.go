package main

import (
	"fmt"
	"io"
	"strings"
	"sync/atomic"
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
	note atomic.Pointer[string]
}

// newProgress begins to show; total 0 is unknown.
func newProgress(w io.Writer, label string, total int) *progress {
	p := &progress{w: w, label: label, total: total, last: time.Now(), shown: -1}
	p.note.Store(new(string))
	if !isTerminal(w) {
		return p
	}
	p.bars = mpb.New(mpb.WithOutput(w))
	bar, err := p.bars.Add(int64(total), mpb.BarFillerFunc(func(w io.Writer, at decor.Statistics) error {
		_, err := io.WriteString(w, barLine(at.AvailableWidth, p.label, int(at.Current), p.total, *p.note.Load()))
		return err
	}), mpb.BarFillerTrim())
	if err != nil { // told line by line, then
		p.bars = nil
		return p
	}
	p.bar = bar
	return p
}

const (
	barMost  = 24 // columns of the bar
	barLeast = 8  // below it is left out
)

// barLine is progress in a line of a terminal, whatever its width: first the
// figures, then as much as there is room for of the bar and the remark.
func barLine(width int, label string, n, total int, note string) string {
	width-- // some terminals wrap when the last column is written
	line := label + " " + number(n)
	if total > 0 {
		share := fmt.Sprintf("  %3d %%", min(100, n*100/total))
		line += " of " + number(total)
		room := min(barMost, width-len(line)-len(share)-len("  [")-len("]")-min(len(note), width/3))
		if room >= barLeast {
			full := min(room, n*room/total)
			line += "  [" + strings.Repeat("=", full) + strings.Repeat("-", room-full) + "]"
		}
		line += share
	}
	if note != "" {
		line += "  " + note
	}
	return cropped(line, width)
}

// cropped is as much of a line of ASCII and common letters as fits.
func cropped(line string, width int) string {
	runes := []rune(line)
	if len(runes) <= width {
		return line
	}
	return string(runes[:max(0, width-1)]) + "…"
}

// say writes a line that stays, above the bar if there is one.
func (p *progress) say(line string) {
	if p.bars != nil {
		if _, err := p.bars.Write([]byte(line + "\n")); err == nil {
			return
		}
	}
	fmt.Fprintln(p.w, line)
}

// set says how many are through, and a remark.
func (p *progress) set(n int, note string) {
	if p.bar != nil {
		p.note.Store(&note)
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
	p.note.Store(&note)
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
