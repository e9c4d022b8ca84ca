// Package schedule is when a campaign may send, and when it has to stop: reading
// and writing what people say of it, and reckoning with it. It knows no clock
// and no broker.
//
//   - [ParseAt] is a moment: "2026-12-01 09:00 Europe/Berlin", "+2h", RFC 3339.
//   - [ParseWindow] is hours of the week: "Mo-Fr 08:00-18:00 Europe/Berlin". A
//     campaign has any number of them: [Windows].
//   - [ParseFuse] is how much may be refused: "whole=5,refused=30%/500", "off".
//
// Errors are *[Error] and say what to write. What was read prints itself in one
// form, which reads as the same.
//
// # Hours and the days of two clocks
//
// Hours are those that a clock on a wall of their zone shows. On the day when an
// hour is left out, hours within it do not happen; on the day when an hour comes
// twice, hours within it do. So a window of 02:00-03:00 in Berlin is closed all
// of one day in March, and open for two hours one day in October. An [ParseAt]
// in the hour left out is an error; in the hour that comes twice it is the first.
//
// Zones are known by name where the system knows them; a program that must not
// depend on it imports time/tzdata.
package schedule

import (
	"slices"
	"strings"
	"time"
)

// ParseAt reads a moment:
//
//	2026-12-01T09:00:00+01:00         RFC 3339
//	2026-12-01 09:00 Europe/Berlin    date, time and zone
//	+2h                               from now on, see [ParseDuration]
//
// It may be past.
func ParseAt(s string, now time.Time) (time.Time, error) {
	bad := &Error{What: "at", Text: s, Reason: "write it like 2026-12-01T09:00:00Z, 2026-12-01 09:00 Europe/Berlin or +2h"}
	s = strings.TrimSpace(s)
	if after, ok := strings.CutPrefix(s, "+"); ok {
		d, err := ParseDuration(after)
		if err != nil {
			return time.Time{}, bad
		}
		return now.Add(d), nil
	}
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t, nil
	}
	if date, rest, ok := strings.Cut(s, "T"); ok && len(date) == len("2006-01-02") {
		s = date + " " + rest
	}
	words := strings.Fields(s)
	if len(words) < 2 || len(words) > 3 {
		return time.Time{}, bad
	}
	wall, err := time.Parse("2006-01-02 15:04", words[0]+" "+words[1])
	if err != nil {
		if wall, err = time.Parse("2006-01-02 15:04:05", words[0]+" "+words[1]); err != nil {
			return time.Time{}, bad
		}
	}
	if len(words) == 2 {
		return time.Time{}, bad.because("the zone is missing: write it like " + words[0] + " " + words[1] + " Europe/Berlin")
	}
	zone, err := loadZone(words[2])
	if err != nil {
		return time.Time{}, bad.because(err.Error())
	}
	for _, t := range moments(wall, zone) {
		if sameWall(t, wall) {
			return t, nil
		}
	}
	return time.Time{}, bad.because("the clocks of " + zone.String() + " leave this hour out that day: choose another")
}

// sameWall tells whether a clock in t's zone shows what wall says, which is in
// UTC.
func sameWall(t, wall time.Time) bool {
	_, offset := t.Zone()
	return t.UTC().Add(time.Duration(offset) * time.Second).Equal(wall)
}

// moments are the moments at which a clock in the zone may show the wall time,
// which is given in UTC, in order: one for each offset from UTC that holds
// around then. Where the hour is left out, it shows something else.
func moments(wall time.Time, zone *time.Location) []time.Time {
	var found []time.Time
	for _, t := range []time.Time{wall.Add(-26 * time.Hour), wall, wall.Add(26 * time.Hour)} {
		_, offset := t.In(zone).Zone()
		found = append(found, wall.Add(-time.Duration(offset)*time.Second).In(zone))
	}
	slices.SortFunc(found, time.Time.Compare)
	return slices.CompactFunc(found, time.Time.Equal)
}

// loadZone is a zone by its name.
func loadZone(name string) (*time.Location, error) {
	if name != "" && name != "Local" {
		if zone, err := time.LoadLocation(name); err == nil {
			return zone, nil
		}
	}
	return nil, &Error{What: "zone", Text: name, Reason: "write its name, like Europe/Berlin, America/New_York or UTC"}
}
