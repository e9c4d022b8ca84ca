package smtp

import "strings"

// DSN asks for delivery status notifications (RFC 3461). Servers that do not
// offer DSN are not asked. The zero value asks for nothing.
type DSN struct {
	EnvelopeID        string // ENVID, at most 100 octets as encoded; printable ASCII
	Return            string // RET: FULL or HDRS; empty: the server's choice
	Notify            string // NOTIFY: NEVER, or a list of SUCCESS, FAILURE, DELAY with commas; empty: the server's choice
	OriginalRecipient bool   // ORCPT: name each recipient as we do
}

func (d *DSN) valid() bool {
	if *d == (DSN{}) {
		return true
	}
	if d.Return != "" && d.Return != "FULL" && d.Return != "HDRS" {
		return false
	}
	if d.Notify != "" && d.Notify != "NEVER" {
		for word := range strings.SplitSeq(d.Notify, ",") {
			if word != "SUCCESS" && word != "FAILURE" && word != "DELAY" {
				return false
			}
		}
	}
	for i := range len(d.EnvelopeID) {
		if c := d.EnvelopeID[i]; c < ' ' || c > '~' {
			return false
		}
	}
	return len(appendXtext(nil, d.EnvelopeID)) <= 100
}

func (d *DSN) appendMAIL(b []byte) []byte {
	if d.Return != "" {
		b = append(append(b, " RET="...), d.Return...)
	}
	if d.EnvelopeID != "" {
		b = appendXtext(append(b, " ENVID="...), d.EnvelopeID)
	}
	return b
}

func (d *DSN) appendRCPT(b []byte, to string, utf8 bool) []byte {
	if d.Notify != "" {
		b = append(append(b, " NOTIFY="...), d.Notify...)
	}
	if d.OriginalRecipient {
		if utf8 {
			// RFC 6533, 3: utf-8-addr-unitext, which may stand as it
			// is but for the same characters.
			b = append(b, " ORCPT=utf-8;"...)
		} else {
			b = append(b, " ORCPT=rfc822;"...)
		}
		b = appendXtext(b, to)
	}
	return b
}

// appendXtext encodes as RFC 3461, 4 has it.
func appendXtext(b []byte, s string) []byte {
	const hex = "0123456789ABCDEF"
	for i := range len(s) {
		c := s[i]
		if c <= ' ' || c == '+' || c == '=' || c == 0x7f {
			b = append(b, '+', hex[c>>4], hex[c&15])
			continue
		}
		b = append(b, c)
	}
	return b
}
