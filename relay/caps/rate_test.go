package caps_test

import (
	"testing"
	"time"

	"bulkmail/relay/caps"
)

func TestRatesAreReadAndWritten(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]caps.Rate{
		"0":       {},
		"14/s":    {Messages: 14, Per: time.Second},
		"500/m":   {Messages: 500, Per: time.Minute},
		"10000/h": {Messages: 10000, Per: time.Hour},
		"100/10s": {Messages: 100, Per: 10 * time.Second},
	} {
		got, err := caps.ParseRate(s)
		if err != nil || got != want || got.String() != s {
			t.Errorf("%s: got %+v (%s), %v", s, got, got, err)
		}
	}
	for _, s := range []string{"", "14", "/s", "14/", "-1/s", "0/s", "14/d", "14/-1s", "14/0s", "1.5/s", "99999999999999999999/s", "14/s/s"} {
		if got, err := caps.ParseRate(s); err == nil {
			t.Errorf("%q: got %s", s, got)
		}
	}
}
