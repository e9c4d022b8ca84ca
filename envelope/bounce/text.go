package bounce

import (
	"bytes"
	"strings"
)

// A passage is what a text says of one recipient: the line that names it, from the
// address on, and the lines behind that up to a blank one or another recipient.
type passage struct {
	address string
	alias   string // of Postfix' "(expanded from <alias>)"
	text    string
	shaped  bool // the address stands where servers put that of a recipient
}

// breaks begin the returned message, in mails that do not have it as a part.
var breaks = [...]string{
	"--- below this line is a copy", "--- below the next line is a copy", "this is a copy of the message", "this is a copy of your message", "----- original message", "-----original message", "-------original message", "--- original message",
	"----- unsent message", "message headers follow", "message header follows", "original message follows", "copy of the original message", "--- enclosed is a copy",
	"--- returned message", "------- returned message", "included is a copy", "original message headers:", "original message header", "--- the header of the original", "--- undelivered message follows", "received: from ", "received: by ",
	"headers of the original message", "first part of the message", "---- message body follows", "begin message header", "the following is a copy", "text of the original message", "the first 1024",
}

// cutText splits a text into what the server says and the message that it returns.
func cutText(b []byte) (said, returned []byte) {
	rest := b
	for len(rest) > 0 {
		at := len(b) - len(rest)
		var line []byte
		line, rest = cutLine(rest)
		if isBreak(line) {
			return b[:at], b[at:]
		}
	}
	return b, nil
}

func isBreak(line []byte) bool {
	l := strings.ToLower(string(bytes.TrimSpace(line[:min(len(line), 200)])))
	if strings.HasPrefix(l, "return-path: ") || strings.HasPrefix(l, "content-type: message/rfc822") {
		return true
	}
	for _, b := range breaks {
		if strings.Contains(l, b) {
			return !strings.HasPrefix(l, "received:") || strings.HasPrefix(l, b)
		}
	}
	return false
}

// labels stand before the address of a recipient, at the beginning of a line.
var labels = [...]string{
	"", "*", "-", "o", "recipient:", "recipient address:", "original address:", "addressed to:", "rcpt to:", "> rcpt to:", ">>> rcpt to:", "failed recipient:", "recipients:", "e-mail:", "final-recipient:",
	"unknown user:", "user unknown:", "failed address:", ">>>", "invalid final delivery userid:", "failed to deliver to", "delivery failed:", "unable to deliver to:", "was not delivered to:", "in: rcpt to:",
	"could not deliver message to:", "email:", "address:",
}

// prose stands before the address of a recipient, within a sentence.
var prose = [...]string{
	"mail to", "message to", "delivered to", "following recipient:", "following message to", "deliver to", "delivery to", "sent to", "delivering to", "recipient", "recipients", "for", "email to", "address", "user", "recipient(s)",
	"reached", "mailbox", "to", "account", "delivering your mail to", "failed:",
}

// senders stand before the address of somebody else.
var senders = [...]string{
	"from", "from:", "sender", "sender:", "contact", "reply-to:", "envelope-from", "message-id:", "in-reply-to:", "cc:", "please", "support", "forward", "mailto:", "return-path:", "postmaster", "email us", "write to", "from user", "or", "at", "subject:", "sent by",
}

// passages finds the recipients in a text. own are addresses that it speaks of
// besides, of the report itself.
func passages(said []byte, own map[string]bool) []passage {
	s := scan{own: own}
	for lines := 0; len(said) > 0 && lines < maxLines && len(s.found) < maxRecipients; lines++ {
		var raw []byte
		raw, said = cutLine(said)
		s.line(strings.Join(strings.Fields(string(raw[:min(len(raw), maxLine)])), " "))
	}
	return s.found
}

// scan is the state of passages.
type scan struct {
	own     map[string]bool
	found   []passage
	open    bool     // the last passage goes on
	pending []string // of a transcript, that belong to the recipient who comes next
}

func (s *scan) line(line string) {
	if line == "" {
		if s.open && s.found[len(s.found)-1].text != "" {
			s.open = false
		}
		return
	}
	if strings.HasSuffix(line, ":") && strings.Contains(strings.ToLower(line), "while talking to") {
		s.open, s.pending = false, nil
		return
	}
	if p, ok := verdictLine(line); ok {
		p.text = strings.Join(append(s.pending, line), "\n")
		s.found = append(s.found, p)
		s.open, s.pending = false, nil
		return
	}
	transcript := isTranscript(line)
	if transcript {
		if len(s.pending) < 20 {
			s.pending = append(s.pending, line)
		}
		if !strings.HasPrefix(line, ">>>") && !strings.HasPrefix(line, "<<<") {
			s.open = false
		}
	}
	if p, ok := recipientLine(line, s.own); ok {
		if n := len(s.found); n > 0 && s.found[n-1].address == p.address {
			s.found[n-1].more(p.text)
			s.found[n-1].shaped = s.found[n-1].shaped || p.shaped
		} else {
			s.found = append(s.found, p)
		}
		s.open = true
		return
	}
	if s.open {
		s.found[len(s.found)-1].more(line)
	}
}

// isTranscript reports whether a line is of a transcript: a command, a reply, or
// Sendmail's word on a host, "550 example.org (smtp)... Host unknown".
func isTranscript(line string) bool {
	if strings.HasPrefix(line, ">>>") || strings.HasPrefix(line, "<<<") {
		return true
	}
	code, rest, _ := strings.Cut(line, " ")
	return trimCodes(code) == "" && strings.Contains(rest, "...") && !strings.Contains(rest, "@")
}

// verdictLine reads Sendmail's word on a recipient, "550 <ann@example.net>... User unknown".
func verdictLine(line string) (passage, bool) {
	address, before, after := cutAddress(line)
	words := strings.Fields(strings.TrimSuffix(before, "<"))
	if address == "" || len(words) < 1 || len(words) > 2 || !strings.HasPrefix(strings.TrimPrefix(after, ">"), "...") {
		return passage{}, false
	}
	for _, w := range words {
		if trimCodes(w) != "" {
			return passage{}, false
		}
	}
	return passage{address: address, shaped: true}, true
}

func (p *passage) more(line string) {
	if p.alias == "" {
		if _, after, ok := strings.Cut(line, "(expanded from"); ok {
			p.alias = firstAddress(after)
		} else if strings.HasSuffix(p.text, "(expanded from") {
			p.alias = firstAddress(line)
		} else if _, after, ok := strings.Cut(line, "generated from"); ok {
			p.alias = firstAddress(after)
		}
	}
	switch {
	case p.text == "":
		p.text = line
	case line != "" && len(p.text) < maxText:
		p.text += "\n" + line
	}
}

// recipientLine reads a line that names a recipient.
func recipientLine(line string, own map[string]bool) (passage, bool) {
	address, before, after := cutAddress(line)
	if address == "" {
		return passage{}, false
	}
	bare := strings.ToLower(strings.TrimSpace(strings.TrimRight(before, "<('\"[=`")))
	bare = strings.TrimSpace(strings.TrimSuffix(bare, "rfc822;"))
	mine := own[strings.ToLower(address)]
	p := passage{address: address}
	for _, l := range labels {
		if bare == l && (l != "" || !mine || strings.HasPrefix(before, "<") && strings.HasPrefix(after, ">:")) {
			p.shaped = !strings.HasPrefix(l, ">>>")
			p.more(strings.TrimLeft(strings.TrimLeft(after, `>)'"]`), ": "))
			if strings.Contains(l, "rcpt") {
				p.text = line
			}
			return p, true
		}
	}
	if mine {
		return passage{}, false
	}
	// "Delivery failed 20 attempts: ann@example.net"
	if name, _, ok := strings.Cut(bare, ":"); ok && strings.HasSuffix(bare, ":") && strings.Trim(after, ">)]'\".") == "" && !isHeaderName(name) {
		p.text = line
		return p, true
	}
	for _, s := range senders {
		if bare == s || strings.HasSuffix(bare, " "+s) {
			return passage{}, false
		}
	}
	for _, s := range prose {
		if bare == s || strings.HasSuffix(bare, " "+s) {
			p.text = line
			return p, true
		}
	}
	return passage{}, false
}

// isHeaderName tells fields that are quoted in a text from what is said of recipients.
func isHeaderName(name string) bool {
	switch strings.TrimSpace(strings.TrimLeft(name, "> ")) {
	case "from", "to", "cc", "bcc", "subject", "sender", "reply-to", "message-id", "x-sender", "return-path", "delivered-to", "x-original-to", "mail from", "original sender", "envelope-from", "errors-to", "in-reply-to":
		return true
	}
	return false
}
