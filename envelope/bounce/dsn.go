package bounce

import (
	"bytes"
	"strconv"
	"strings"
)

// An entry is what a report says of one recipient, as it says it (RFC 3464 2.3).
type entry struct {
	original, final string
	action          string
	status          string
	diagnostic      string
	diagnosticType  string // smtp, x-unix …
	remote          string
	category        string // PowerMTA's own classification
}

// categories are those of PowerMTA, in X-PowerMTA-BounceCategory.
var categories = map[string]Reason{
	"bad-mailbox":         UnknownUser,
	"bad-domain":          UnknownHost,
	"inactive-mailbox":    Suspended,
	"quota-issues":        MailboxFull,
	"spam-related":        Content,
	"virus-related":       Content,
	"content-related":     Content,
	"policy-related":      Policy,
	"relaying-issues":     Policy,
	"message-expired":     Network,
	"no-answer-from-host": Network,
	"routing-errors":      Network,
	"bad-connection":      Network,
}

// deliveryStatus reads the fields of a delivery status: those of the message, then
// those of each recipient. Blank lines separate them in RFC 3464, and some servers
// leave them out or have too many; a field that comes again begins another recipient.
func (p *parsing) deliveryStatus(b []byte) {
	var e entry
	seen := make(map[string]bool)
	flush := func() {
		if e.original != "" || e.final != "" {
			p.entry(e)
			e = entry{}
		}
		clear(seen)
	}
	for len(b) > 0 {
		b = bytes.TrimLeft(b, "\r\n")
		group, rest := readHeader(b)
		if len(group) == 0 {
			_, rest = cutLine(b)
		}
		for _, f := range group {
			if isRecipientField(f.name) {
				if seen[f.name] {
					flush()
				}
				seen[f.name] = true
			}
			p.statusField(&e, f)
		}
		if e.original != "" || e.final != "" {
			flush()
		}
		if len(rest) >= len(b) {
			break
		}
		b = rest
	}
	flush()
}

func isRecipientField(name string) bool {
	switch name {
	case "original-recipient", "final-recipient", "action", "status", "diagnostic-code":
		return true
	}
	return false
}

func (p *parsing) statusField(e *entry, f field) {
	switch f.name {
	case "original-envelope-id":
		p.report.EnvelopeID = f.value
	case "original-recipient":
		e.original = typedAddress(f.value)
	case "final-recipient":
		e.final = typedAddress(f.value)
	case "action":
		e.action, _, _ = strings.Cut(strings.ToLower(strings.TrimSpace(f.value)), " ")
	case "status":
		e.status = f.value
	case "diagnostic-code":
		e.diagnosticType, e.diagnostic = cutType(f.value)
	case "remote-mta":
		_, e.remote = cutType(f.value)
		e.remote, _, _ = strings.Cut(strings.TrimSpace(e.remote), " ")
	case "x-powermta-bouncecategory":
		e.category = strings.ToLower(f.value)
	case "reporting-mta":
		_, p.reporter = cutType(f.value)
	}
}

// cutType splits "type; value". Some servers leave the type out.
func cutType(value string) (kind, rest string) {
	kind, rest, ok := strings.Cut(value, ";")
	if !ok || strings.ContainsAny(strings.TrimSpace(kind), " <@") {
		return "", value
	}
	return strings.ToLower(strings.TrimSpace(kind)), strings.TrimSpace(rest)
}

// typedAddress reads "rfc822; ann@example.net" and RFC 6533's "utf-8; …".
func typedAddress(value string) string {
	kind, rest := cutType(value)
	if kind == "utf-8" {
		rest = unescapeUnicode(rest)
	}
	return firstAddress(rest)
}

// unescapeUnicode undoes the \x{1F408} of RFC 6533 3.
func unescapeUnicode(s string) string {
	var out strings.Builder
	for {
		before, rest, ok := strings.Cut(s, `\x{`)
		out.WriteString(before)
		if !ok {
			return out.String()
		}
		hex, after, ok := strings.Cut(rest, "}")
		n, err := strconv.ParseUint(hex, 16, 21)
		if !ok || err != nil || n < ' ' {
			out.WriteString(`\x{`)
			s = rest
			continue
		}
		out.WriteRune(rune(n))
		s = after
	}
}

// action says what an Action means.
func (e *entry) kind() Kind {
	switch e.action {
	case "delayed":
		return Delayed
	case "delivered", "relayed", "expanded":
		return Delivered
	}
	return Bounced
}
