package dkim

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"hash"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Options are what a relay, or who runs it, wants of a signature. The zero value
// is right for most.
type Options struct {
	// Unsigned are the fields that the relay changes or adds, and which must
	// not be signed: Message-ID and Date for Amazon SES. From is always signed
	// (RFC 6376 5.4).
	Unsigned []string
	// Expire is how long a signature is good (x=); 0: for good.
	Expire time.Duration
}

// signed are the fields that are signed where they are, each as often as it
// is (RFC 6376 5.4.1, and what RFC 8058 4 wants).
var signed = []string{
	"From", "Sender", "Reply-To", "Subject", "Date", "Message-ID", "To", "Cc", "In-Reply-To", "References",
	"MIME-Version", "Content-Type", "Content-Transfer-Encoding",
	"List-Id", "List-Help", "List-Unsubscribe", "List-Unsubscribe-Post", "List-Subscribe", "List-Post", "List-Owner", "List-Archive",
}

// oversigned are the fields that are named once more than they are, so that
// nobody on the way can add one.
var oversigned = []string{"From", "Subject", "List-Unsubscribe", "List-Unsubscribe-Post"}

// A Signer makes signatures. It keeps its memory for the next one, and so serves
// one goroutine.
type Signer struct {
	body    hash.Hash
	head    hash.Hash
	fields  []headerField
	scratch []byte
	sum     [sha256.Size]byte
	bh      [base64Size]byte
}

const base64Size = (sha256.Size + 2) / 3 * 4

type headerField struct {
	name, value []byte // value with its folds, without the final line end
	used        bool
}

// Append appends a DKIM-Signature field for each of the keys, which belong in
// front of the message. The message is as it follows DATA, all lines with CRLF
// and dots stuffed; a bare CR or LF in it is what whoever made it has to answer
// for.
func (s *Signer) Append(dst, wire []byte, keys Keys, o *Options, now time.Time) ([]byte, error) {
	if s.body == nil {
		s.body, s.head = sha256.New(), sha256.New()
	}
	header, body := split(wire)
	s.readFields(header)
	bodyHash := s.hashBody(body)
	for _, k := range keys {
		var err error
		if dst, err = s.sign(dst, k, bodyHash, o, now); err != nil {
			return nil, err
		}
	}
	return dst, nil
}

// split parts header and body; the empty line belongs to neither.
func split(wire []byte) (header, body []byte) {
	if at := bytes.Index(wire, []byte("\r\n\r\n")); at >= 0 {
		return wire[:at+2], wire[at+4:]
	}
	return wire, nil
}

func (s *Signer) readFields(header []byte) {
	s.fields = s.fields[:0]
	for len(header) > 0 {
		end := 0
		for {
			n := bytes.Index(header[end:], []byte("\r\n"))
			if n < 0 {
				end = len(header)
				break
			}
			end += n
			if end+2 >= len(header) || header[end+2] != ' ' && header[end+2] != '\t' {
				break
			}
			end += 2
		}
		field := header[:end]
		header = header[min(end+2, len(header)):]
		if name, value, ok := bytes.Cut(field, []byte(":")); ok {
			s.fields = append(s.fields, headerField{name: bytes.TrimRight(name, " \t"), value: value})
		}
	}
}

// hashBody is bh= of the body, in base64: relaxed (RFC 6376 3.4.4), dots
// unstuffed.
func (s *Signer) hashBody(body []byte) []byte {
	s.body.Reset()
	s.scratch = s.scratch[:0]
	empty := 0
	for len(body) > 0 {
		line := body
		if end := bytes.Index(body, []byte("\r\n")); end >= 0 {
			line, body = body[:end], body[end+2:]
		} else {
			body = nil
		}
		if len(line) > 0 && line[0] == '.' {
			line = line[1:]
		}
		line = bytes.TrimRight(line, " \t")
		if len(line) == 0 {
			empty++
			continue
		}
		for ; empty > 0; empty-- {
			s.scratch = append(s.scratch, '\r', '\n')
		}
		s.scratch = append(appendReduced(s.scratch, line), '\r', '\n')
		if len(s.scratch) > 8<<10 {
			s.body.Write(s.scratch)
			s.scratch = s.scratch[:0]
		}
	}
	s.body.Write(s.scratch)
	sum := s.body.Sum(s.sum[:0])
	return base64.StdEncoding.AppendEncode(s.bh[:0], sum)
}

// appendReduced appends the text with each run of blanks made one.
func appendReduced(dst, text []byte) []byte {
	// Most lines have no such run, and looking for one is quick.
	if !bytes.Contains(text, []byte("  ")) && bytes.IndexByte(text, '\t') < 0 {
		return append(dst, text...)
	}
	for len(text) > 0 {
		at := bytes.IndexAny(text, " \t")
		if at < 0 {
			return append(dst, text...)
		}
		dst = append(append(dst, text[:at]...), ' ')
		for at < len(text) && (text[at] == ' ' || text[at] == '\t') {
			at++
		}
		text = text[at:]
	}
	return dst
}

// sign appends the field of one key.
func (s *Signer) sign(dst []byte, k *Key, bodyHash []byte, o *Options, now time.Time) ([]byte, error) {
	start := len(dst)
	dst = append(dst, "DKIM-Signature: v=1; a="...)
	dst = append(append(dst, k.Algorithm()...), "; c=relaxed/relaxed; d="...)
	dst = append(append(dst, k.Domain...), ";\r\n s="...)
	dst = append(append(dst, k.Selector...), "; t="...)
	dst = strconv.AppendInt(dst, now.Unix(), 10)
	if o.Expire > 0 {
		dst = append(dst, "; x="...)
		dst = strconv.AppendInt(dst, now.Add(o.Expire).Unix(), 10)
	}
	dst = append(dst, ";\r\n h="...)
	s.head.Reset()
	for i := range s.fields {
		s.fields[i].used = false
	}
	dst = s.names(dst, o)
	dst = append(append(dst, ";\r\n bh="...), bodyHash...)
	dst = append(dst, ";\r\n b="...)
	// The field itself, with an empty b= and without a line end, is hashed last
	// (RFC 6376 3.7).
	s.scratch = appendRelaxed(s.scratch[:0], []byte("dkim-signature"), dst[start+len("DKIM-Signature:"):])
	s.head.Write(s.scratch[:len(s.scratch)-2])
	digest := s.head.Sum(s.sum[:0])
	signature, err := k.signer.Sign(rand.Reader, digest, signOptions(k))
	if err != nil {
		return nil, err
	}
	s.scratch = base64.StdEncoding.AppendEncode(s.scratch[:0], signature)
	for text := s.scratch; ; {
		n := min(len(text), 72)
		dst = append(dst, text[:n]...)
		if text = text[n:]; len(text) == 0 {
			return append(dst, '\r', '\n'), nil
		}
		dst = append(dst, "\r\n  "...)
	}
}

// signOptions: an Ed25519 signature is one of the digest as a message (RFC 8463
// 3).
func signOptions(k *Key) crypto.SignerOpts { return k.hash }

// names appends h= and hashes the fields in its order: of several with one name
// the last first (RFC 6376 5.4.2).
func (s *Signer) names(dst []byte, o *Options) []byte {
	first, column := true, len(" h=")
	add := func(name string) {
		if !first {
			dst = append(dst, ':')
			if column++; column+len(name) > 75 {
				dst = append(dst, "\r\n  "...)
				column = 2
			}
		}
		first = false
		dst = append(dst, name...)
		column += len(name)
	}
	for _, name := range signed {
		if name != "From" && slices.ContainsFunc(o.Unsigned, func(u string) bool { return strings.EqualFold(u, name) }) {
			continue
		}
		for i := len(s.fields) - 1; i >= 0; i-- {
			if f := &s.fields[i]; !f.used && equalFold(f.name, name) {
				f.used = true
				add(name)
				s.scratch = appendRelaxed(s.scratch[:0], f.name, f.value)
				s.head.Write(s.scratch)
			}
		}
		if slices.Contains(oversigned, name) {
			add(name)
		}
	}
	return dst
}

func equalFold(b []byte, name string) bool {
	return len(b) == len(name) && strings.EqualFold(string(b), name)
}

// appendRelaxed appends a field as the relaxed canonicalization has it (RFC 6376
// 3.4.2).
func appendRelaxed(dst, name, value []byte) []byte {
	for _, c := range name {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		dst = append(dst, c)
	}
	dst = append(dst, ':')
	start := len(dst)
	blank := false
	for _, c := range value {
		switch c {
		case '\r', '\n':
		case ' ', '\t':
			blank = true
		default:
			if blank && len(dst) > start {
				dst = append(dst, ' ')
			}
			blank = false
			dst = append(dst, c)
		}
	}
	return append(dst, '\r', '\n')
}
