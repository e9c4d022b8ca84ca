package envelope

import (
	"unicode/utf8"
)

// A Batch is what a publisher puts on the broker: one message, its sender and
// its recipients.
//
//	{"id": "0001", "from": "news@example.com",
//	 "recipients": ["ann@example.net", "bob@example.org"],
//	 "message": "Subject: Hi\r\n\r\nHello.\r\n"}
//
// Exactly one of Message and MessageRef is set.
type Batch struct {
	ID         string   // as published; "" leaves it to the worker to find one
	From       string   // as said in MAIL FROM; "" is the null sender
	Recipients []string // as published, not checked: see [Batch.Plan]
	Message    string   // the message itself
	MessageRef string   // or the name of the object that holds it
	DSN        DSN      // the fields dsn_envid, dsn_return and dsn_notify
}

// A FieldError is a batch, or a message, that cannot be sent as it is.
type FieldError struct {
	Field  string // what it is about: a field, "recipients[17]", or "batch" for the whole
	Reason string // what is wrong with it
}

// Error is one line: the field and what is wrong with it.
func (e *FieldError) Error() string { return e.Field + ": " + e.Reason }

// AppendJSON appends the batch to dst as [Decode] reads it. It checks nothing.
// JSON is UTF-8: a message in another encoding has to go by MessageRef, as
// Decode refuses it rather than replace what it cannot read.
func (b *Batch) AppendJSON(dst []byte) []byte {
	dst = append(dst, '{')
	if b.ID != "" {
		dst = append(appendString(append(dst, `"id":`...), b.ID), ',')
	}
	dst = appendString(append(dst, `"from":`...), b.From)
	dst = append(dst, `,"recipients":[`...)
	for i, r := range b.Recipients {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendString(dst, r)
	}
	if b.MessageRef != "" {
		dst = appendString(append(dst, `],"message_ref":`...), b.MessageRef)
	} else {
		dst = appendString(append(dst, `],"message":`...), b.Message)
	}
	if b.DSN.EnvelopeID != "" {
		dst = appendString(append(dst, `,"dsn_envid":`...), b.DSN.EnvelopeID)
	}
	if b.DSN.Return != "" {
		dst = appendString(append(dst, `,"dsn_return":`...), b.DSN.Return)
	}
	if b.DSN.Notify != "" {
		dst = appendString(append(dst, `,"dsn_notify":`...), b.DSN.Notify)
	}
	return append(dst, '}')
}

func appendString(dst []byte, s string) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	start := 0
	for i := plainEnd(s, 0); i < len(s); i = plainEnd(s, i+1) {
		c := s[i]
		if c >= utf8.RuneSelf {
			continue
		}
		dst = append(dst, s[start:i]...)
		start = i + 1
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, `\n`...)
		case '\r':
			dst = append(dst, `\r`...)
		case '\t':
			dst = append(dst, `\t`...)
		default:
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&0xf])
		}
	}
	return append(append(dst, s[start:]...), '"')
}
