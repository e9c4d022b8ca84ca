package envelope

import (
	"strings"

	"golang.org/x/net/idna"
)

// lookup maps domains as browsers do (UTS 46, not transitional), with the
// rules for right-to-left labels. Hyphens in third and fourth place are let
// through: such ASCII labels exist, and one beside an international label is
// no worse than alone.
var lookup = idna.New(idna.MapForLookup(), idna.BidiRule(), idna.CheckHyphens(false))

// toASCII maps a domain with U-labels or A-labels to checked A-labels.
func toASCII(s string) (domain, reason string) {
	// A character takes four octets at most and becomes one at least. Checked
	// first, as the time of punycode grows with the square of the length.
	if len(s) > 4*maxDomain {
		return "", tooLong
	}
	domain, err := lookup.ToASCII(s)
	if err != nil {
		const most = 128 // the error quotes what it is about
		what := strings.TrimPrefix(err.Error(), "idna: ")
		if len(what) > most {
			what = strings.ToValidUTF8(what[:most], "") + "…"
		}
		return "", "not a domain name: " + what
	}
	return domain, ""
}
