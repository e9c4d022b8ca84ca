package schedule_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	_ "time/tzdata" // the host may know no zones

	"pgregory.net/rapid"

	"bulkmail/subjects/schedule"
)

func ExampleWindows() {
	hours, err := schedule.ParseWindows([]string{"Mo-Fr 08:00-18:00 Europe/Berlin"})
	if err != nil {
		fmt.Println(err)
		return
	}
	saturday := time.Date(2026, 3, 28, 12, 0, 0, 0, time.UTC)
	fmt.Println(hours.Open(saturday), hours.Next(saturday).Format(time.RFC3339))
	// Output: false 2026-03-30T08:00:00+02:00
}

func TestAMomentIsReadInEachOfItsForms(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]string{
		"2026-12-01T09:00:00+01:00":        "2026-12-01T08:00:00Z",
		"2026-12-01T09:00:00Z":             "2026-12-01T09:00:00Z",
		"2026-12-01 09:00 Europe/Berlin":   "2026-12-01T08:00:00Z",
		"2026-07-01 09:00 Europe/Berlin":   "2026-07-01T07:00:00Z",
		"2026-12-01 09:00:30 UTC":          "2026-12-01T09:00:30Z",
		"2026-12-01T09:00 Europe/Tallinn":  "2026-12-01T07:00:00Z",
		"+2h":                              "2026-11-24T14:00:00Z",
		"+1d12h":                           "2026-11-26T00:00:00Z",
		"2020-01-01 00:00 UTC":             "2020-01-01T00:00:00Z",
		"2026-10-25 02:30 Europe/Berlin":   "2026-10-25T00:30:00Z", // comes twice
		"2026-11-01 01:30 America/Chicago": "2026-11-01T06:30:00Z", // comes twice
	} {
		if got, err := schedule.ParseAt(text, now); err != nil || got.UTC().Format(time.RFC3339) != want {
			t.Errorf("%q is %v, want %s, error %v", text, got, want, err)
		}
	}
	for text, want := range map[string]string{
		"":                                "write it like",
		"tomorrow":                        "write it like",
		"+":                               "write it like",
		"+2":                              "write it like",
		"+-2h":                            "write it like",
		"2026-12-01":                      "write it like",
		"2026-12-01 09:00":                "the zone is missing: write it like 2026-12-01 09:00 Europe/Berlin",
		"2026-13-01 09:00 Europe/Berlin":  "write it like",
		"2026-12-01 24:00 Europe/Berlin":  "write it like",
		"2026-12-01 09:00 Europe/Berlino": `zone "Europe/Berlino": write its name`,
		"2026-12-01 09:00 Local":          `zone "Local"`,
		"2026-12-01 09:00 +01:00":         `zone "+01:00"`,
		"2026-03-29 02:30 Europe/Berlin":  "the clocks of Europe/Berlin leave this hour out that day",
	} {
		_, err := schedule.ParseAt(text, now)
		if bad, ok := errors.AsType[*schedule.Error](err); !ok || bad.Text != text || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error is %v, want %q in it", text, err, want)
		}
	}
}

func TestAWindowIsReadAndWrittenInOneForm(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"Mo-Fr 08:00-18:00 Europe/Berlin":     "Mo-Fr 08:00-18:00 Europe/Berlin",
		" mo,WE  8:00-9:30  UTC ":             "Mo,We 08:00-09:30 UTC",
		"Monday,Tue,We,Sa-Su 22:00-06:00 UTC": "Mo-We,Sa-Su 22:00-06:00 UTC",
		"Fr-Mo 00:00-24:00 America/New_York":  "Mo,Fr-Su 00:00-24:00 America/New_York",
		"22:00-00:00 UTC":                     "Mo-Su 22:00-24:00 UTC",
		"Su 00:00-24:00 UTC":                  "Su 00:00-24:00 UTC",
	} {
		w, err := schedule.ParseWindow(text)
		if err != nil || w.String() != want {
			t.Errorf("%q is %q, want %q, error %v", text, w, want, err)
		}
	}
	for text, want := range map[string]string{
		"":                               "write it like Mo-Fr 08:00-18:00 Europe/Berlin",
		"always":                         "write it like",
		"Mo-Fr 08:00-18:00":              "the zone is missing: write it like Mo-Fr 08:00-18:00 Europe/Berlin",
		"08:00-18:00":                    "the zone is missing",
		"Mo-Fr 08:00-18:00 Berlin":       `zone "Berlin": write its name, like Europe/Berlin`,
		"Xx 08:00-18:00 UTC":             "write them like Mo-Fr or Mo,We",
		"Mo, 08:00-18:00 UTC":            "write them like Mo-Fr or Mo,We",
		"Mo 08:00 UTC":                   "hours like 08:00-18:00",
		"Mo 08-18 UTC":                   "hours like 08:00-18:00",
		"Mo 08:00-24:01 UTC":             "hours like 08:00-18:00",
		"Mo 08:60-18:00 UTC":             "hours like 08:00-18:00",
		"Mo 24:00-06:00 UTC":             "a day begins at 00:00",
		"Mo 08:00-08:00 UTC":             "the whole day is 00:00-24:00",
		"Mo 00:00-00:00 UTC":             "the whole day is 00:00-24:00",
		"Mo 08:00-18:00 UTC and so on":   "write it like",
		"Mo 08:00-18:00 ../../etc/hosts": "write its name",
	} {
		_, err := schedule.ParseWindow(text)
		if bad, ok := errors.AsType[*schedule.Error](err); !ok || bad.Text != text || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error is %v, want %q in it", text, err, want)
		}
	}
	if _, err := schedule.ParseWindows([]string{"x", "Mo 08:00-18:00 UTC", "y"}); err == nil || strings.Count(err.Error(), "window") != 2 {
		t.Errorf("error is %v", err)
	}
}

func TestWindowsFollowTheClockOnTheWallOnBothDaysItChanges(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ window, now, next, closes string }{
		"an hour left out is not open":     {"Su 02:00-03:00 Europe/Berlin", "2026-03-28T12:00:00Z", "2026-04-05T02:00:00+02:00", "2026-04-05T03:00:00+02:00"},
		"half of it left out":              {"Su 02:30-04:00 Europe/Berlin", "2026-03-29T00:00:00Z", "2026-03-29T03:00:00+02:00", "2026-03-29T04:00:00+02:00"},
		"over midnight, an hour shorter":   {"Sa 22:00-06:00 Europe/Berlin", "2026-03-28T12:00:00Z", "2026-03-28T22:00:00+01:00", "2026-03-29T06:00:00+02:00"},
		"an hour that comes twice":         {"Su 02:00-03:00 Europe/Berlin", "2026-10-24T12:00:00Z", "2026-10-25T02:00:00+02:00", "2026-10-25T03:00:00+01:00"},
		"half of one, first time":          {"Su 02:30-03:00 Europe/Berlin", "2026-10-24T12:00:00Z", "2026-10-25T02:30:00+02:00", "2026-10-25T02:00:00+01:00"},
		"half of one, second time":         {"Su 02:30-03:00 Europe/Berlin", "2026-10-25T01:00:00Z", "2026-10-25T02:30:00+01:00", "2026-10-25T03:00:00+01:00"},
		"the other way, south of the line": {"Su 02:30-03:30 America/Santiago", "2026-09-05T12:00:00Z", "2026-09-06T02:30:00-03:00", "2026-09-06T03:30:00-03:00"},
		"a day left out":                   {"Fr 09:00-10:00 Pacific/Apia", "2011-12-29T22:00:00Z", "2012-01-06T09:00:00+14:00", "2012-01-06T10:00:00+14:00"},
		"half an hour, as on Lord Howe":    {"Su 02:00-02:30 Australia/Lord_Howe", "2026-10-03T00:00:00Z", "2026-10-11T02:00:00+11:00", "2026-10-11T02:30:00+11:00"},
		"midnight left out":                {"Fr 00:00-01:00 Africa/Cairo", "2026-04-23T12:00:00Z", "2026-05-01T00:00:00+03:00", "2026-05-01T01:00:00+03:00"},
		"24:00 and 00:00 the day after":    {"Mo-Tu 22:00-24:00 UTC", "2026-11-23T00:00:00Z", "2026-11-23T22:00:00Z", "2026-11-24T00:00:00Z"},
		"two days that touch are one":      {"Mo-Tu 00:00-24:00 UTC", "2026-11-22T00:00:00Z", "2026-11-23T00:00:00Z", "2026-11-25T00:00:00Z"},
		"within a minute of its end":       {"Mo 08:00-09:00 UTC", "2026-11-23T08:59:59.999Z", "2026-11-23T08:59:59.999Z", "2026-11-23T09:00:00Z"},
		"its end is outside":               {"Mo 08:00-09:00 UTC", "2026-11-23T09:00:00Z", "2026-11-30T08:00:00Z", "2026-11-30T09:00:00Z"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ws, err := schedule.ParseWindows([]string{tc.window})
			if err != nil {
				t.Fatal(err)
			}
			next := ws.Next(at(t, tc.now))
			if !next.Equal(at(t, tc.next)) || !ws.Open(next) {
				t.Errorf("opens at %v, want %s", next, tc.next)
			}
			if closes, ok := ws.Closes(next); !ok || !closes.Equal(at(t, tc.closes)) {
				t.Errorf("closes at %v, %v, want %s", closes, ok, tc.closes)
			}
		})
	}
}

func at(t *testing.T, s string) time.Time {
	t.Helper()
	moment, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		t.Fatal(err)
	}
	return moment
}

func TestACampaignWithoutHoursIsAlwaysOpen(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var none schedule.Windows
	if _, ends := none.Closes(now); !none.Open(now) || !none.Next(now).Equal(now) || ends || none.Strings() == nil {
		t.Error("it is not")
	}
	always, err := schedule.ParseWindows([]string{"00:00-24:00 Europe/Berlin"})
	if err != nil {
		t.Fatal(err)
	}
	if at, ends := always.Closes(now); ends {
		t.Errorf("all hours end at %v", at)
	}
}

// Against every minute looked at by itself, near the days on which clocks change.
func TestWindowsOpenAndCloseInTheMinuteThatTheWallClockSays(t *testing.T) {
	t.Parallel()
	zones := []string{"Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Santiago", "Africa/Cairo", "Asia/Kolkata", "UTC"}
	changes := []string{"2026-03-08T00:00:00Z", "2026-03-29T00:00:00Z", "2026-04-05T00:00:00Z", "2026-04-24T00:00:00Z", "2026-09-06T00:00:00Z", "2026-10-04T00:00:00Z", "2026-10-25T00:00:00Z", "2026-11-01T00:00:00Z"}
	days := []string{"Mo", "Tu", "We", "Th", "Fr", "Sa", "Su"}
	rapid.Check(t, func(t *rapid.T) {
		var ws schedule.Windows
		var spans []span
		for range rapid.IntRange(1, 3).Draw(t, "windows") {
			s := span{zone: rapid.SampledFrom(zones).Draw(t, "zone"), days: rapid.SliceOfNDistinct(rapid.SampledFrom(days), 1, 7, rapid.ID[string]).Draw(t, "days")}
			minute := rapid.Custom(func(t *rapid.T) string {
				return fmt.Sprintf("%02d:%02d", rapid.IntRange(0, 23).Draw(t, "hour"), rapid.SampledFrom([]int{0, 1, 15, 30, 59}).Draw(t, "minute"))
			})
			s.clock, _ = time.LoadLocation(s.zone)
			s.from, s.to = minute.Draw(t, "from"), minute.Draw(t, "to")
			if s.from == s.to {
				s.from, s.to = "00:00", "24:00"
			}
			w, err := schedule.ParseWindow(strings.Join(s.days, ",") + " " + s.from + "-" + s.to + " " + s.zone)
			if err != nil {
				t.Fatal(err)
			}
			ws, spans = append(ws, w), append(spans, s)
		}
		change, _ := time.Parse(time.RFC3339, rapid.SampledFrom(changes).Draw(t, "change"))
		now := change.Add(time.Duration(rapid.IntRange(-40*60, 40*60).Draw(t, "minutes")) * time.Minute)
		open := openAt(spans, now)
		if ws.Open(now) != open {
			t.Fatalf("%v at %v: open is %v", ws, now, !open)
		}
		turns, found := now, false
		for range 9 * 24 * 60 {
			if turns = turns.Add(time.Minute); openAt(spans, turns) != open {
				found = true
				break
			}
		}
		next := ws.Next(now)
		closes, ends := ws.Closes(now)
		switch {
		case open && (!next.Equal(now) || found && (!ends || !closes.Equal(turns)) || !found && ends && closes.Before(turns)):
			t.Fatalf("%v at %v: next %v, closes %v %v, want %v %v", ws, now, next, closes, ends, turns, found)
		case !open && (found && !next.Equal(turns) || !found && next.Before(turns) || !closes.Equal(now) || !ends):
			t.Fatalf("%v at %v: next %v, closes %v %v, want %v %v", ws, now, next, closes, ends, turns, found)
		}
	})
}

// A span is a window in words, as a person reads it off the wall.
type span struct {
	days           []string
	from, to, zone string
	clock          *time.Location
}

func openAt(spans []span, now time.Time) bool {
	for _, s := range spans {
		local := now.In(s.clock)
		clock, today := local.Format("15:04"), local.Weekday().String()[:2]
		yesterday := time.Weekday((int(local.Weekday()) + 6) % 7).String()[:2]
		for _, day := range s.days {
			over := s.to < s.from
			if day == today && clock >= s.from && (over || clock < s.to) || day == yesterday && over && clock < s.to {
				return true
			}
		}
	}
	return false
}

func TestAFuseIsReadAndWrittenInOneForm(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":                          "whole=5,refused=30%/500",
		"off":                       "off",
		"whole=5,refused=30%/500":   "whole=5,refused=30%/500",
		"refused=100%/10, whole=1":  "whole=1,refused=100%/10",
		"whole=7":                   "whole=7,refused=30%/500",
		"refused=5%/1000":           "whole=5,refused=5%/1000",
		"whole=999999,refused=1%/1": "whole=999999,refused=1%/1",
	} {
		f, err := schedule.ParseFuse(text)
		if err != nil || f.String() != want {
			t.Errorf("%q is %q, want %q, error %v", text, f, want, err)
		}
		if again, err := schedule.ParseFuse(f.String()); err != nil || again != f {
			t.Errorf("%q reads as %+v, error %v", f, again, err)
		}
	}
	if got := (schedule.Fuse{}).String(); got != "whole=5,refused=30%/500" {
		t.Errorf("the zero value is %s", got)
	}
	for _, text := range []string{
		"on", "Off ", "whole", "whole=", "whole=0", "whole=-1", "whole=1e3", "whole=99999999999999999999", "whole=5,whole=6", "whole=5,",
		"refused=30", "refused=30%", "refused=0%/500", "refused=101%/500", "refused=30%/0", "refused=3.5%/500", "refused=30%/500x",
	} {
		_, err := schedule.ParseFuse(text)
		if bad, ok := errors.AsType[*schedule.Error](err); !ok || bad.Text != text || !strings.Contains(err.Error(), "write it like whole=5,refused=30%/500, or off") {
			t.Errorf("%q: error is %v", text, err)
		}
	}
}

func TestADurationMayHaveDaysAndWeeks(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{
		"90s": 90 * time.Second, "2h30m": 150 * time.Minute, "3d": 72 * time.Hour, "1w": 168 * time.Hour, "1w2d3h": 219 * time.Hour, "1.5h": 90 * time.Minute,
	} {
		if got, err := schedule.ParseDuration(text); err != nil || got != want {
			t.Errorf("%q is %v, want %v, error %v", text, got, want, err)
		}
	}
	for _, text := range []string{"", "0s", "-1h", "2", "d", "1h1d", "1d-1h", "1d+1h", "3x", "999999999999w", "99999d", "100000h"} {
		_, err := schedule.ParseDuration(text)
		if bad, ok := errors.AsType[*schedule.Error](err); !ok || bad.Text != text {
			t.Errorf("%q: error is %v", text, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"Mo-Fr 08:00-18:00 Europe/Berlin", "Mo,We 22:00-06:00 UTC", "whole=5,refused=30%/500", "off", "+2h", "1w2d", "2026-12-01 09:00 Europe/Berlin"} {
		f.Add(s)
	}
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, text string) {
		if w, err := schedule.ParseWindow(text); err == nil {
			again, err := schedule.ParseWindow(w.String())
			if err != nil || again.String() != w.String() {
				t.Errorf("%q is %q, which is %q, error %v", text, w, again, err)
			}
			if ws := (schedule.Windows{w}); !ws.Open(ws.Next(now)) {
				t.Errorf("%q does not open", w)
			}
		}
		if fuse, err := schedule.ParseFuse(text); err == nil {
			if again, err := schedule.ParseFuse(fuse.String()); err != nil || again != fuse {
				t.Errorf("%q is %q, which is %q, error %v", text, fuse, again, err)
			}
		}
		if d, err := schedule.ParseDuration(text); err == nil && d <= 0 {
			t.Errorf("%q is %v", text, d)
		}
		_, _ = schedule.ParseAt(text, now)
	})
}
