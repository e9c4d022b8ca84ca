package caps

import (
	"cmp"
	"errors"
	"strconv"
	"strings"
	"time"
)

// Rate is so many messages in so much time: "14/s", "500/m", "10000/h". The
// zero Rate is no limit.
type Rate struct {
	Messages int
	Per      time.Duration
}

var errRate = errors.New("want a rate such as 14/s, 500/m or 10000/h, or 0 for none")

// ParseRate reads "14/s", "500/m", "10000/h", "100/10s" or "0".
func ParseRate(s string) (Rate, error) {
	if s == "0" {
		return Rate{}, nil
	}
	count, per, ok := strings.Cut(s, "/")
	n, err := strconv.Atoi(count)
	if !ok || err != nil || n < 1 {
		return Rate{}, errRate
	}
	if per == "s" || per == "m" || per == "h" {
		per = "1" + per
	}
	d, err := time.ParseDuration(per)
	if err != nil || d <= 0 {
		return Rate{}, errRate
	}
	return Rate{Messages: n, Per: d}, nil
}

// String is the form that [ParseRate] reads.
func (r Rate) String() string {
	if r == (Rate{}) {
		return "0"
	}
	unit := map[time.Duration]string{time.Second: "s", time.Minute: "m", time.Hour: "h"}[r.Per]
	return strconv.Itoa(r.Messages) + "/" + cmp.Or(unit, r.Per.String())
}

// in is how many messages are due in d, at most those of a period.
func (r Rate) in(d time.Duration) int {
	return int(float64(r.Messages) * (float64(min(d, r.Per)) / float64(r.Per)))
}

// worth is the time in which so many messages are due.
func (r Rate) worth(messages int) time.Duration {
	return time.Duration(float64(r.Per) * (float64(messages) / float64(r.Messages)))
}
