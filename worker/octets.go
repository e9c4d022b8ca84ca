package worker

import (
	"fmt"
	"strconv"
	"strings"
)

// Octets is an amount of memory. As text it may have a unit: 64MB, 1GB, or 64MiB.
type Octets int64

// UnmarshalText reads what people write.
func (o *Octets) UnmarshalText(text []byte) error {
	number := strings.TrimRight(string(text), "BKMGTibkmgt ")
	unit := strings.TrimSpace(string(text[len(number):]))
	n, err := strconv.ParseInt(number, 10, 64)
	size := int64(1)
	switch strings.ToUpper(unit) {
	case "", "B":
	case "KB":
		size = 1e3
	case "MB":
		size = 1e6
	case "GB":
		size = 1e9
	case "KIB":
		size = 1 << 10
	case "MIB":
		size = 1 << 20
	case "GIB":
		size = 1 << 30
	default:
		err = strconv.ErrSyntax
	}
	if err != nil || n < 0 || n > 1<<62/size {
		return fmt.Errorf("%q is not a size such as 64MB or 1GB", text)
	}
	*o = Octets(n * size)
	return nil
}

// String is o with the largest unit that it is about a whole number of.
func (o Octets) String() string {
	size, unit := float64(o), "B"
	for _, next := range []string{"KB", "MB", "GB"} {
		if size < 1000 {
			break
		}
		size, unit = size/1000, next
	}
	return strconv.FormatFloat(size, 'g', 3, 64) + unit
}
