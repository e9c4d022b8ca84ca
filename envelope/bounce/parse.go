package bounce

import (
	"bytes"
	"fmt"
	"mime"
	"strings"
)

// Parse reads a mail that is in memory.
func Parse(mail []byte) Report {
	h, body := readHeader(mail)
	var parts reading
	parts.add(h, body, 0)
	p := &parsing{header: h, own: make(map[string]bool)}
	p.report.Truncated = parts.truncated
	p.collect(parts.parts)
	p.judge()
	return p.report
}

// parsing is the reading of one mail.
type parsing struct {
	header   header
	said     []byte // what the server says, as text
	rest     []byte // the returned message, where it follows in the text
	text     []byte // both
	returned header // of the returned message
	entries  []entry
	feedback header // of RFC 5965
	reporter string // the reporting server
	own      map[string]bool
	report   Report
}

// collect sorts the parts into what is said and what is returned.
func (p *parsing) collect(parts []part) {
	var plain, tagged bytes.Buffer
	for _, part := range parts {
		switch part.mediaType {
		case "message/delivery-status", "message/global-delivery-status":
			p.deliveryStatus(part.body)
		case "message/feedback-report":
			if p.feedback == nil {
				p.feedback, _ = readHeader(bytes.TrimLeft(part.body, "\r\n"))
			}
		case "message/rfc822", "message/global", "text/rfc822-headers", "message/global-headers", "message/rfc822-headers":
			if p.returned == nil {
				p.returned, _ = readHeader(bytes.TrimLeft(part.body, "\r\n"))
			}
		case "text/html":
			if p.returned == nil {
				tagged.Write(plainText(part.body))
				tagged.WriteByte('\n')
			}
		default:
			if p.returned == nil && strings.HasPrefix(part.mediaType, "text/") {
				plain.Write(part.body)
				plain.WriteByte('\n')
			}
		}
	}
	p.text = plain.Bytes()
	if len(bytes.TrimSpace(p.text)) == 0 {
		p.text = tagged.Bytes()
	}
	p.text = p.text[:min(len(p.text), 4*maxSaid)]
	p.said, p.rest = cutText(p.text)
	p.said = p.said[:min(len(p.said), maxSaid)]
	if p.returned == nil {
		p.returned = headerWithin(p.rest)
	}
	p.report.ReturnPath = firstAddress(p.returned.get("return-path"))
	p.report.MessageID = strings.Trim(p.returned.get("message-id"), "<> ")
	for _, of := range [...]string{p.header.get("to"), p.header.get("from"), p.returned.get("from"), p.returned.get("return-path")} {
		for _, address := range addresses(of) {
			p.own[strings.ToLower(address)] = true
		}
	}
}

// headerWithin returns the header that begins somewhere in a text.
func headerWithin(b []byte) header {
	for len(b) > 0 {
		line, rest := cutLine(b)
		if _, _, ok := cutField(line); ok && startsWithField(rest) {
			h, _ := readHeader(b)
			return h
		}
		b = rest
	}
	return nil
}

// judge says what the mail is.
func (p *parsing) judge() {
	switch {
	case p.feedback != nil:
		p.complaint()
	case len(p.entries) > 0:
		p.status()
	case p.header.has("x-hmxmroriginalrecipient"), p.returned.has("x-hmxmroriginalrecipient"): // of Outlook.com's JMRP
		p.complaint()
	case p.isNotification():
		p.notification()
	case p.isAutoReply():
		p.report.Kind = AutoReply
		p.report.Recipients = []Recipient{{Kind: AutoReply, Address: firstAddress(p.header.get("from"))}}
	case p.isBounce():
		p.prose()
	}
	if len(p.report.Recipients) == 0 {
		p.report.Recipients = []Recipient{{Kind: None}}
	}
	if p.returnsBounce() {
		for i := range p.report.Recipients {
			r := &p.report.Recipients[i]
			r.Kind, r.Hard, r.Reason = None, false, ""
		}
	}
	p.report.Kind = p.report.Recipients[0].Kind
}

// entry keeps one recipient of a delivery status.
func (p *parsing) entry(e entry) {
	if len(p.entries) >= maxRecipients {
		p.report.Truncated = true
		return
	}
	p.entries = append(p.entries, e)
}

// status makes recipients of a delivery status, and of what the text adds to it:
// which command was refused, and sometimes all that is said of the reason.
func (p *parsing) status() {
	found := passages(p.said, p.own)
	for i := range p.entries {
		e := &p.entries[i]
		r := Recipient{Kind: e.kind(), Address: e.original, Final: e.final, Remote: e.remote}
		var beside *passage
		for j := range found {
			if a := found[j].address; a == e.final || a == e.original {
				beside = &found[j]
				break
			}
		}
		if r.Address == "" && beside != nil && beside.alias != "" {
			r.Address = beside.alias
		}
		if r.Address == "" {
			r.Address = e.final
		}
		r.Text = strings.Join(strings.Fields(e.diagnostic), " ")
		if _, after, ok := bytes.Cut(p.said, []byte("was automatically rejected:")); ok { // by Dovecot, in the words of the recipient's rule
			after = after[:min(len(after), maxText)]
			if v := classify(Refusal{Text: string(after)}, true); v.Reason != Other {
				r.Text = strings.Join(strings.Fields(string(after)), " ")
			}
		}
		refusal := Refusal{Enhanced: e.status, Text: r.Text, Command: p.command(e, beside)}
		if r.Kind != Delivered {
			p.conclude(&r, refusal, p.beside(beside), false, e.category)
		} else {
			r.Enhanced, r.Code = numbers(refusal)
		}
		p.report.Recipients = append(p.report.Recipients, r)
	}
}

// beside returns the texts in which the reason may stand if the report does not
// give it, the best first.
func (p *parsing) beside(passage *passage) []string {
	var texts []string
	if passage != nil {
		texts = append(texts, passage.text)
	}
	if len(p.entries) <= 1 {
		texts = append(texts, string(p.said[:min(len(p.said), 2*maxText)]))
	}
	return texts
}

// conclude classifies what was said of a recipient; beside are other texts for
// where the refusal says nothing.
func (p *parsing) conclude(r *Recipient, refusal Refusal, beside []string, prose bool, category string) {
	r.Enhanced, r.Code = numbers(refusal)
	v := classify(refusal, prose)
	for _, text := range beside {
		if v.Reason != Other {
			break
		}
		other := refusal
		other.Text = text
		if w := classify(other, true); w.Reason != Other {
			v = w
			if r.Code == 0 {
				r.Enhanced, r.Code = numbers(other)
			}
			if r.Text == "" {
				r.Text = strings.Join(strings.Fields(text[:min(len(text), 500)]), " ")
			}
		}
	}
	if v.Hard && refusal.Text == "" && len(beside) > 0 {
		// No more than prose says so; where it speaks of the account as disabled, there is one.
		if w := classify(Refusal{Text: beside[len(beside)-1]}, true); w.Reason == Suspended {
			v = w
		}
	}
	if v.Hard && p.fromRule() {
		v.Reason, v.Hard = Policy, false
	}
	if v.Reason == Other || v.Reason == Policy {
		if reason, ok := categories[category]; ok {
			v.Reason, v.Hard = reason, reason.Hard() && v.Kind == Bounced
		}
	}
	r.Reason, r.Hard = v.Reason, v.Hard && r.Kind == Bounced
	if !r.Hard && r.Reason.Hard() {
		r.Reason = Other
	}
}

// fromRule reports whether the report is what a recipient's rule answers to mail that
// was taken: a receipt rule of Amazon SES, which can give any reason.
func (p *parsing) fromRule() bool {
	host, _, _ := strings.Cut(strings.TrimSpace(p.reporter), " ")
	return strings.HasPrefix(host, "inbound-smtp.") && strings.HasSuffix(host, ".amazonaws.com")
}

// numbers are the enhanced status and the code of a refusal, as they are shown.
func numbers(r Refusal) (enhanced string, code int) {
	s := chooseStatus(r.Enhanced, r.Text)
	if s.class != 0 {
		enhanced = fmt.Sprintf("%d.%d.%d", s.class, s.subject, s.detail)
	}
	if r.Code != 0 {
		return enhanced, r.Code
	}
	return enhanced, findCode(r.Text)
}

// command finds the command that was refused, for one of the entries.
func (p *parsing) command(e *entry, beside *passage) Command {
	if c := findCommand(e.diagnostic); c != CommandUnknown {
		return c
	}
	if beside != nil {
		if c := findCommand(beside.text); c != CommandUnknown {
			return c
		}
	}
	if c := commandBefore(p.said, e.diagnostic); c != CommandUnknown {
		return c
	}
	if len(p.entries) == 1 {
		return findCommand(string(p.said[:min(len(p.said), 4*maxText)]))
	}
	return CommandUnknown
}

// commandBefore finds a reply in a transcript as Sendmail's, where ">>> RCPT To:"
// stands before "<<< 550".
func commandBefore(said []byte, reply string) Command {
	reply = strings.TrimSpace(reply)
	reply = reply[:min(len(reply), 40)]
	if reply == "" {
		return CommandUnknown
	}
	at := bytes.Index(said, []byte("<<< "+reply))
	if at < 0 {
		return CommandUnknown
	}
	before := said[:at]
	command := bytes.LastIndex(before, []byte(">>> "))
	if command < 0 {
		return CommandUnknown
	}
	line, _ := cutLine(before[command:])
	return findCommand(string(line))
}

// prose makes recipients of a text without a delivery status.
func (p *parsing) prose() {
	found := passages(p.said, p.own)
	if len(found) == 0 {
		if within := statusWithin(p.text); within != nil {
			if p.deliveryStatus(within); len(p.entries) > 0 {
				p.status()
				return
			}
		}
	} else if within := statusWithin(p.said); within != nil {
		if p.deliveryStatus(within); len(p.entries) > 0 {
			p.status()
			return
		}
	}
	found = p.best(merged(found))
	kind := Bounced
	if p.isDelay() {
		kind = Delayed
	}
	whole := string(p.said[:min(len(p.said), 2*maxText)])
	for i := range found {
		f := &found[i]
		r := Recipient{Kind: kind, Address: f.address, Final: f.address}
		if f.alias != "" {
			r.Address = f.alias
		}
		text := strings.TrimSpace(f.text)
		var beside []string
		if len(found) == 1 {
			beside = []string{whole}
		}
		command := findCommand(text)
		if command == CommandUnknown && len(found) == 1 {
			command = findCommand(whole)
		}
		if text == "" && len(found) == 1 {
			text, beside = whole, nil
		}
		r.Text = strings.Join(strings.Fields(text), " ")
		p.conclude(&r, Refusal{Text: r.Text, Command: command}, beside, true, "")
		p.report.Recipients = append(p.report.Recipients, r)
	}
}

// best chooses among what looks like recipients: what the header names, else what
// stands where recipients stand, else what a sentence names first, else whom the
// returned message is to, if that is one.
func (p *parsing) best(found []passage) []passage {
	var named []string
	for _, name := range [...]string{"x-failed-recipients", "x-bounced-address"} {
		named = append(named, addresses(p.header.get(name))...)
	}
	if len(named) > 0 {
		all := make([]passage, 0, len(named))
		for _, address := range named {
			this := passage{address: address}
			for _, f := range found {
				if strings.EqualFold(f.address, address) || f.alias != "" && strings.EqualFold(f.alias, address) {
					this.more(f.text)
				}
			}
			all = append(all, this)
		}
		return all
	}
	var shaped []passage
	for _, f := range found {
		if f.shaped {
			shaped = append(shaped, f)
		}
	}
	switch {
	case len(shaped) > 0:
		return shaped
	case len(found) > 0:
		return found[:1]
	}
	if to := addresses(p.returned.get("to")); len(to) == 1 {
		return []passage{{address: to[0]}}
	}
	return nil
}

// merged puts passages about the same recipient together.
func merged(found []passage) []passage {
	at := make(map[string]int, len(found))
	var all []passage
	for _, f := range found {
		key := strings.ToLower(f.address)
		i, ok := at[key]
		if !ok {
			at[key] = len(all)
			all = append(all, f)
			continue
		}
		all[i].more(f.text)
		all[i].shaped = all[i].shaped || f.shaped
	}
	return all
}

// statusWithin returns the fields of a delivery status that stand within a text,
// from gateways that take MIME apart; nil if there are none.
func statusWithin(text []byte) []byte {
	for b := text; len(b) > 0; {
		line, rest := cutLine(b)
		name, _, ok := cutField(line)
		if ok && (isRecipientField(name) && name != "action" && name != "status" && name != "diagnostic-code" || name == "reporting-mta" && startsWithField(rest)) {
			return b
		}
		b = rest
	}
	return nil
}

// complaint makes a recipient of a complaint (RFC 5965).
func (p *parsing) complaint() {
	kind := Complained
	switch strings.ToLower(p.feedback.get("feedback-type")) {
	case "not-spam", "auth-failure", "dmarc", "dkim":
		kind = None // nobody complained
	case "opt-out", "opt-out-list":
		kind = Unsubscribed
	}
	if path := firstAddress(p.feedback.get("original-mail-from")); path != "" {
		p.report.ReturnPath = path
	}
	p.report.EnvelopeID = p.feedback.get("original-envelope-id")
	var to []string
	for _, f := range p.feedback {
		if f.name == "original-rcpt-to" || f.name == "removal-recipient" {
			to = append(to, addresses(f.value)...)
		}
	}
	for _, name := range [...]string{"x-hmxmroriginalrecipient", "to"} {
		if len(to) == 0 {
			to = addresses(p.returned.get(name))
		}
	}
	for _, address := range to[:min(len(to), maxRecipients)] {
		p.report.Recipients = append(p.report.Recipients, Recipient{Kind: kind, Address: address})
	}
	if len(to) == 0 {
		p.report.Recipients = []Recipient{{Kind: kind}}
	}
}

// subject is the mail's subject, decoded and in lower case.
func (p *parsing) subject() string {
	raw := p.header.get("subject")
	if s, err := new(mime.WordDecoder).DecodeHeader(raw); err == nil {
		raw = s
	}
	return strings.ToLower(raw)
}
