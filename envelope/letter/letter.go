// Package letter makes of a message and the data of a recipient the letter that
// leaves: merged, encoded, with the header fields that mail needs.
//
// The way through it:
//
//  1. [Compile] reads a message once. Its texts and header fields are templates
//     (package mustache); what is constant in them is encoded and dot-stuffed
//     here, with seams where values go. Attachments are left alone.
//  2. [Renderer.Render] makes one letter in memory that the next one uses again.
//     A value is escaped by where it stands, brought into the charset of its
//     part, and encoded as the part is. What cannot be is a [RejectError], and
//     that recipient's alone.
//  3. The result says what it asks of a relay (8BITMIME, SMTPUTF8), and can be
//     made for a relay without 8BITMIME.
//
// A message to many ([Options.Constant]) goes the same way without values: Bcc
// out, Date, Message-ID and MIME-Version in, long lines and raw 8-bit header
// fields encoded. [Template.Problems] is what a publisher should not send.
//
// How a value is written:
//
//	text/html                 & < > " ' become entities, {{{x}}} is raw
//	other texts               as it is; CR, LF and CRLF are line ends
//	within an http(s) URL     percent-encoded, but for a placeholder that is the whole URL
//	header field              folded, RFC 2047 where needed; CR, LF and NUL reject
//	address field             display names quoted or encoded, addresses checked
//
// A text in 7bit or 8bit becomes quoted-printable in those letters that need it,
// for 8-bit octets or lines over 998; a text in another charset becomes UTF-8 in
// those whose values the charset lacks. Charsets of several octets a character
// (but UTF-8) become UTF-8 in every letter.
package letter

import (
	"fmt"
	"time"

	"bulkmail/envelope/keys"
	"bulkmail/envelope/mustache"
)

// Options say what a message is compiled for.
type Options struct {
	// Constant is a message to many: placeholders mean nothing in it.
	Constant bool
	// Sender is the envelope's sender, whose domain stands in the Message-ID
	// where From has none.
	Sender string
}

// An Error is a message that cannot be made a letter of.
type Error struct {
	Line   int // from the message's first, 1
	Column int // in characters, from 1; 0: the line as a whole
	Reason string
}

func (e *Error) Error() string {
	switch {
	case e.Line == 0:
		return e.Reason
	case e.Column == 0:
		return fmt.Sprintf("line %d: %s", e.Line, e.Reason)
	}
	return fmt.Sprintf("line %d, column %d: %s", e.Line, e.Column, e.Reason)
}

// A RejectError is a recipient whose letter cannot be made; the text follows
// "not sent: ".
type RejectError struct{ Reason string }

func (e *RejectError) Error() string { return e.Reason }

// A Problem is what makes a publisher refuse a message that could be sent.
type Problem struct {
	Line   int // 0: the message as a whole
	Reason string
}

func (p Problem) String() string {
	if p.Line == 0 {
		return p.Reason
	}
	return fmt.Sprintf("line %d: %s", p.Line, p.Reason)
}

// A Template is a compiled message. It does not change and may be shared.
type Template struct {
	options   Options
	segments  []segment
	parts     []*part
	problems  []Problem
	hasBcc    bool
	domain    string // of From, as written
	has       map[string]bool
	variables []string
	oneClick  bool // its own List-Unsubscribe has our URL

	octets int // of the text that it keeps
	common int // of these, those that a letter has as they are
}

// Octets is how much text the template keeps: about as much as memory it takes.
func (t *Template) Octets() int { return t.octets }

// Problems are what a publisher refuses the message for; a worker sends it as it
// is.
func (t *Template) Problems() []Problem { return t.problems }

// HasBcc tells whether the message had a Bcc, which everybody would have seen
// and which letters do not have.
func (t *Template) HasBcc() bool { return t.hasBcc }

// Domain is that of From as written, "" if it has none or a placeholder in it.
func (t *Template) Domain() string { return t.domain }

// Has tells whether the message has the header field itself, in lower case.
func (t *Template) Has(name string) bool { return t.has[name] }

// Variables are the names that the message asks for, in its order, each once.
func (t *Template) Variables() []string { return t.variables }

// A Batch is what the letters of a batch have in common. It must not change.
type Batch struct {
	Campaign string
	ID       string
	List     string // "": the campaign has none
	// Transactional letters are no mail that one unsubscribes from, and have no
	// fields that offer it.
	Transactional bool
	Data          string // a JSON object, or nothing
	Date          time.Time
	Key           *keys.Key // of Message-IDs and tokens; nil: there are none of both

	UnsubscribeURL    string // https://…, to which the token is appended; "": none
	UnsubscribeMailto string // an address; "": none
}

// A Recipient is whose letter it is.
type Recipient struct {
	To   string // the mailbox, as said in RCPT TO. For a message to many: its digest
	Name string // "": unknown
	Data string // a JSON object, or nothing
}

// A Letter is ready for the wire. It is good until the next is rendered.
type Letter struct {
	Wire     []byte // as it follows DATA: CRLF, dots stuffed, without the lone dot
	Size     int64  // in octets before dot-stuffing (RFC 1870)
	EightBit bool   // wants 8BITMIME
	UTF8     bool   // wants SMTPUTF8
	Domain   string // of From: which keys sign
}

// What is known without data.
const (
	knownTo             = "to"
	knownName           = "name"
	knownCampaign       = "campaign"
	knownMessageID      = "message_id"
	knownUnsubscribeURL = "unsubscribe_url"
)

// MaxData is how much data a recipient may have, in octets.
const MaxData = 32 << 10

// A segment is a piece of a letter: one of its fields is set.
type segment struct {
	wire  []byte // constant, dots stuffed
	field *field // a header field with values
	part  *part  // a piece of a part that can be written in several ways
	piece piece
	added bool // the fields that the message lacks

	stuffed  int // dots
	eightBit bool
	utf8     bool
}

// piece is a piece of a part.
type piece uint8

const (
	pieceType     piece = iota // Content-Type
	pieceEncoding              // Content-Transfer-Encoding
	pieceBody
)

// A part is a text with values, or a body that some relays want encoded.
type part struct {
	index    int // in [Template.parts]
	html     bool
	nodes    []mustache.Node
	places   []place // of its variables
	variants []*variant
	first    int // the best of them

	templated bool // it has nodes; else it is constant
}

// A variant is one way of writing a part.
type variant struct {
	typeField, encodingField []byte
	charset                  charset
	encoding                 encoding
	literals                 []literal
	wire                     []byte // of a constant
	stuffed                  int
	eightBit                 bool // of a constant: it has 8-bit octets; of a text: it may have some

	onCharset int // the variant for characters that the charset lacks, or -1
	onEncode  int // the variant for 8-bit octets and long lines, or -1
}

// encoding is a Content-Transfer-Encoding.
type encoding uint8

const (
	plain encoding = iota // 7bit and 8bit
	quotedPrintable
	base64Encoding
)
