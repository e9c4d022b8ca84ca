package schedule

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Windows are the hours in which a campaign may send. With none it may always.
type Windows []Window

// A Window is hours of some days of the week, in one zone. Hours over midnight
// belong to the day on which they begin.
type Window struct {
	days     [7]bool // by time.Weekday
	from, to int     // minutes of the day; to is over 24 hours if it is on the next
	zone     *time.Location
}

const (
	day = 24 * 60 // minutes

	// ahead is how many days the next change is looked for. A window may miss a
	// week, when the hour is left out.
	ahead = 16
)

var dayNames = [7]string{"Su", "Mo", "Tu", "We", "Th", "Fr", "Sa"}

const windowForm = "write it like Mo-Fr 08:00-18:00 Europe/Berlin"

// ParseWindow reads a window: days, hours, zone.
//
//	Mo-Fr 08:00-18:00 Europe/Berlin
//	Mo,We,Sa-Su 22:00-06:00 UTC       over midnight
//	00:00-24:00 America/New_York      every day, all day
func ParseWindow(s string) (Window, error) {
	bad := &Error{What: "window", Text: s, Reason: windowForm}
	words := strings.Fields(s)
	var w Window
	if len(words) > 0 && strings.Contains(words[0], ":") {
		words = append([]string{"Mo-Su"}, words...)
	}
	if len(words) == 2 {
		return w, bad.because("the zone is missing: " + windowForm)
	}
	if len(words) != 3 {
		return w, bad
	}
	var err error
	if w.days, err = parseDays(words[0]); err != nil {
		return w, bad.because(err.Error())
	}
	from, to, ok := strings.Cut(words[1], "-")
	w.from, w.to = minutes(from), minutes(to)
	switch {
	case !ok || w.from < 0 || w.to < 0:
		return w, bad.because("write its hours like 08:00-18:00")
	case w.from == day:
		return w, bad.because("a day begins at 00:00")
	case w.from == w.to || w.from == 0 && w.to == 0:
		return w, bad.because("it begins when it ends: the whole day is 00:00-24:00")
	case w.to < w.from:
		w.to += day
	}
	if w.zone, err = loadZone(words[2]); err != nil {
		return w, bad.because(err.Error())
	}
	return w, nil
}

// ParseWindows reads several, and reports every one that is wrong.
func ParseWindows(texts []string) (Windows, error) {
	var ws Windows
	var problems []error
	for _, text := range texts {
		w, err := ParseWindow(text)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		ws = append(ws, w)
	}
	return ws, errors.Join(problems...)
}

// parseDays reads days like Mo-Fr or Mo,We,Sa-Su.
func parseDays(s string) (days [7]bool, err error) {
	for part := range strings.SplitSeq(s, ",") {
		first, last, span := strings.Cut(part, "-")
		if !span {
			last = first
		}
		from, to := dayOf(first), dayOf(last)
		if from < 0 || to < 0 {
			return days, &Error{What: "days", Text: s, Reason: "write them like Mo-Fr or Mo,We, of Mo, Tu, We, Th, Fr, Sa, Su"}
		}
		for d := from; ; d = (d + 1) % 7 {
			days[d] = true
			if d == to {
				break
			}
		}
	}
	return days, nil
}

// dayOf is a day by two letters, three, or its whole name; -1 if it is none.
func dayOf(s string) int {
	for d, short := range dayNames {
		long := time.Weekday(d).String()
		if strings.EqualFold(s, short) || strings.EqualFold(s, long[:3]) || strings.EqualFold(s, long) {
			return d
		}
	}
	return -1
}

// minutes is a time of day, 24:00 included; -1 if it is none.
func minutes(s string) int {
	hour, minute, ok := strings.Cut(s, ":")
	h, rest := digits(hour)
	m, more := digits(minute)
	if !ok || hour == "" || len(hour) > 2 || len(minute) != 2 || rest+more != "" || m > 59 || 60*h+m > day {
		return -1
	}
	return 60*h + m
}

// String is the window in the form in which it is read.
func (w Window) String() string {
	if w.zone == nil {
		return ""
	}
	var days []string
	for d := range 7 {
		from := (d + 1) % 7 // a week begins on Monday
		if !w.days[from] || d > 0 && w.days[(from+6)%7] {
			continue
		}
		to := from
		for to != int(time.Sunday) && w.days[(to+1)%7] {
			to = (to + 1) % 7
		}
		switch to {
		case from:
			days = append(days, dayNames[from])
		default:
			days = append(days, dayNames[from]+"-"+dayNames[to])
		}
	}
	to := w.to
	if to > day {
		to -= day
	}
	return fmt.Sprintf("%s %02d:%02d-%02d:%02d %s", strings.Join(days, ","), w.from/60, w.from%60, to/60, to%60, w.zone)
}

// Strings are the windows in the form in which they are read.
func (ws Windows) Strings() []string {
	texts := []string{}
	for _, w := range ws {
		texts = append(texts, w.String())
	}
	return texts
}

// Open tells whether now is within the window: from its beginning on, its end
// excluded.
func (w Window) Open(now time.Time) bool {
	local := now.In(w.zone)
	minute, today := 60*local.Hour()+local.Minute(), local.Weekday()
	if w.days[today] && w.from <= minute && minute < w.to {
		return true
	}
	return w.days[(today+6)%7] && minute+day < w.to
}

// Open tells whether a campaign may send now.
func (ws Windows) Open(now time.Time) bool {
	return len(ws) == 0 || slices.ContainsFunc(ws, func(w Window) bool { return w.Open(now) })
}

// Next is when a campaign may send: now if it may, else when it may next. There
// always is such a time.
func (ws Windows) Next(now time.Time) time.Time {
	if ws.Open(now) {
		return now
	}
	next, _ := ws.change(now)
	return next
}

// Closes is when a campaign that may send now has to stop; now if it may not. ok
// is false if it never has to.
func (ws Windows) Closes(now time.Time) (at time.Time, ok bool) {
	if !ws.Open(now) {
		return now, true
	}
	return ws.change(now)
}

// change is when Open turns next. It does so where a window begins or ends by
// the clock on the wall, or where that clock jumps.
func (ws Windows) change(now time.Time) (at time.Time, ok bool) {
	open := ws.Open(now)
	var turns []time.Time
	for _, w := range ws {
		year, month, today := now.In(w.zone).Date()
		for d := -1; d <= ahead; d++ {
			midnight := time.Date(year, month, today+d, 0, 0, 0, 0, time.UTC)
			for _, minute := range [...]int{w.from, w.to} {
				turns = append(turns, moments(midnight.Add(time.Duration(minute)*time.Minute), w.zone)...)
			}
		}
		last := now.AddDate(0, 0, ahead)
		for jump := now.In(w.zone); ; {
			_, jump = jump.ZoneBounds()
			if jump.IsZero() || jump.After(last) {
				break
			}
			turns = append(turns, jump)
		}
	}
	slices.SortFunc(turns, time.Time.Compare)
	for _, t := range turns {
		if t.After(now) && ws.Open(t) != open {
			return t, true
		}
	}
	return time.Time{}, false
}
