package bounce

import (
	"bytes"
	"encoding/json"
	"strings"
)

// Amazon SES tells of bounces and complaints through SNS, too, which can be
// subscribed to by mail: JSON, within a string of other JSON, in lines that are cut.

// The lists of recipients in a notification.
var notified = [...]struct {
	key  string
	kind Kind
}{
	{"bouncedRecipients", Bounced},
	{"complainedRecipients", Complained},
	{"delayedRecipients", Delayed},
}

func (p *parsing) isNotification() bool {
	for _, n := range notified {
		if bytes.Contains(p.text, []byte(n.key)) {
			return true
		}
	}
	return false
}

// notification makes recipients of such JSON.
func (p *parsing) notification() {
	text := strings.NewReplacer("!\n ", "", "!\r\n ", "", `\"`, `"`, `\\`, `\`).Replace(string(p.text))
	for _, n := range notified {
		_, list, ok := strings.Cut(text, `"`+n.key+`"`)
		if !ok {
			continue
		}
		var recipients []struct{ EmailAddress, Action, Status, DiagnosticCode string }
		list = strings.TrimLeft(list, ": \r\n\t")
		if json.NewDecoder(strings.NewReader(list)).Decode(&recipients) != nil {
			continue
		}
		for _, n2 := range recipients[:min(len(recipients), maxRecipients)] {
			r := Recipient{Kind: n.kind, Address: firstAddress(n2.EmailAddress)}
			if n.kind != Complained {
				_, r.Text = cutType(n2.DiagnosticCode)
				p.conclude(&r, Refusal{Enhanced: n2.Status, Text: r.Text}, nil, false, "")
			}
			p.report.Recipients = append(p.report.Recipients, r)
		}
	}
}
