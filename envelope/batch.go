package envelope

import (
	"fmt"
	"slices"
	"strconv"
	"unicode/utf8"
)

// Version is the highest version of the form of batches that this release
// knows. Version 2 has letters: recipients that are objects, and data.
const Version = 2

// A Batch is what a publisher puts on the broker: one message, its sender and
// its recipients.
//
//	{"id": "0001", "from": "news@example.com",
//	 "recipients": ["ann@example.net", "bob@example.org"],
//	 "message": "Subject: Hi\r\n\r\nHello.\r\n"}
//
// Exactly one of Message and MessageRef is set. A batch with data, or with a
// recipient that is an object, is one of letters:
//
//	{"version": 2, "from": "news@example.com", "message_ref": "…", "data": {"month": "May"},
//	 "recipients": [{"to": "ann@example.net", "name": "Ann Lee", "data": {"first": "Ann"}},
//	  "bob@example.org"]}
type Batch struct {
	Version    int         // of this form; Decode sets it to 1 where it is missing
	ID         string      // as published; "" leaves it to the worker to find one
	From       string      // as said in MAIL FROM; "" is the null sender
	Recipients []Recipient // as published, not checked: see [Batch.Plan]
	Message    string      // the message itself
	MessageRef string      // or the name of the object that holds it
	Data       string      // a JSON object: values for every letter; "" is none
	DSN        DSN         // the fields dsn_envid, dsn_return and dsn_notify
}

// Letters tells whether every recipient gets a message of its own.
func (b *Batch) Letters() bool {
	return b.Data != "" || slices.ContainsFunc(b.Recipients, func(r Recipient) bool { return r.Letter != nil })
}

// A FieldError is a batch, or a message, that cannot be sent as it is.
type FieldError struct {
	Field  string // what it is about: a field, "recipients[17]", or "batch" for the whole
	Reason string // what is wrong with it
}

// Error is one line: the field and what is wrong with it.
func (e *FieldError) Error() string { return e.Field + ": " + e.Reason }

// A VersionError is a batch of a version that this release does not know yet:
// nothing is wrong with it, but nothing in it can be told for certain.
type VersionError struct{ Version int }

// Error is one line.
func (e *VersionError) Error() string {
	return fmt.Sprintf("version %d: this release knows batches up to version %d", e.Version, Version)
}

// AppendJSON appends the batch to dst as [Decode] reads it. It checks nothing,
// and gives a batch of letters without a version version 2.
// JSON is UTF-8: a message in another encoding has to go by MessageRef, as
// Decode refuses it rather than replace what it cannot read.
func (b *Batch) AppendJSON(dst []byte) []byte {
	dst = append(dst, '{')
	version := b.Version
	if version == 0 && b.Letters() {
		version = 2
	}
	if version > 1 {
		dst = append(strconv.AppendInt(append(dst, `"version":`...), int64(version), 10), ',')
	}
	if b.ID != "" {
		dst = append(appendString(append(dst, `"id":`...), b.ID), ',')
	}
	dst = appendString(append(dst, `"from":`...), b.From)
	dst = append(dst, `,"recipients":[`...)
	for i := range b.Recipients {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = b.Recipients[i].AppendJSON(dst)
	}
	if b.MessageRef != "" {
		dst = appendString(append(dst, `],"message_ref":`...), b.MessageRef)
	} else {
		dst = appendString(append(dst, `],"message":`...), b.Message)
	}
	if b.Data != "" {
		dst = append(append(dst, `,"data":`...), b.Data...)
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

// AppendJSON appends the recipient to dst as a batch has it.
func (r *Recipient) AppendJSON(dst []byte) []byte {
	if r.Letter == nil {
		return appendString(dst, r.Address)
	}
	dst = appendString(append(dst, `{"to":`...), r.Address)
	if r.Letter.Name != "" {
		dst = appendString(append(dst, `,"name":`...), r.Letter.Name)
	}
	if r.Letter.Data != "" {
		dst = append(append(dst, `,"data":`...), r.Letter.Data...)
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
