package schedule

import (
	"fmt"
	"strings"
)

// A Fuse is how much of a campaign may be refused before it pauses itself. Zero
// fields are the defaults: whole=5,refused=30%/500.
type Fuse struct {
	Off     bool // it never does
	Whole   int  // envelopes in a row that were refused as a whole; defaults to 5
	Percent int  // of Of; more than this many pause it; defaults to 30
	Of      int  // final recipients, the last ones; defaults to 500
}

const (
	defaultWhole   = 5
	defaultPercent = 30
	defaultOf      = 500
	most           = 1_000_000
)

// ParseFuse reads a fuse: "off", or either or both of whole=5 and
// refused=30%/500, with a comma between them. What is not said, and "", is the
// default. refused=100% is never reached.
func ParseFuse(s string) (Fuse, error) {
	bad := &Error{What: "fuse", Text: s, Reason: "write it like whole=5,refused=30%/500, or off"}
	switch s {
	case "off":
		return Fuse{Off: true}, nil
	case "":
		return Fuse{}.WithDefaults(), nil
	}
	var f Fuse
	for part := range strings.SplitSeq(s, ",") {
		key, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		switch {
		case key == "whole" && f.Whole == 0:
			n, rest := digits(value)
			if value == "" || rest != "" || n < 1 || n >= most {
				return Fuse{}, bad.because("whole is a number of envelopes from 1 on: " + bad.Reason)
			}
			f.Whole = n
		case key == "refused" && f.Percent == 0:
			percent, rest := digits(value)
			of, ok := strings.CutPrefix(rest, "%/")
			n, rest := digits(of)
			if !ok || rest != "" || percent < 1 || percent > 100 || n < 1 || n >= most {
				return Fuse{}, bad.because("refused is a share from 1% to 100% of a number of recipients: " + bad.Reason)
			}
			f.Percent, f.Of = percent, n
		default:
			return Fuse{}, bad
		}
	}
	return f.WithDefaults(), nil
}

// WithDefaults is the fuse with its zero fields filled in.
func (f Fuse) WithDefaults() Fuse {
	if f.Off {
		return Fuse{Off: true}
	}
	if f.Whole == 0 {
		f.Whole = defaultWhole
	}
	if f.Percent == 0 {
		f.Percent = defaultPercent
	}
	if f.Of == 0 {
		f.Of = defaultOf
	}
	return f
}

// String is the fuse in the form in which it is read, whole.
func (f Fuse) String() string {
	if f.Off {
		return "off"
	}
	f = f.WithDefaults()
	return fmt.Sprintf("whole=%d,refused=%d%%/%d", f.Whole, f.Percent, f.Of)
}
