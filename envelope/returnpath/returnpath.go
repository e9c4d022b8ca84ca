// Package returnpath puts a token into the return path of a message (VERP), by
// which a mail that comes back finds the batch and the recipient that it is about,
// without a database and whatever the mail says.
//
//	path, err := returnpath.ParsePath("b+{token}@bounces.example.com")
//	keys, err := returnpath.NewKeys(newest, older)
//	minter := keys.Minter()                                    // one a goroutine
//	from := path.Address(minter.Mint(returnpath.Token{Sequence: claim, Mailbox: minter.Mailbox("ann@example.net")}))
//	…
//	token, ok := path.Token("b+…@bounces.example.com")
//	opened, err := keys.Open(token)
//
// A token is 24 octets in base32, 39 lower-case letters and digits: a local part
// ends at 64 octets (RFC 5321 4.5.3.1.1), and relays fold its case. The octets are
// the form, six of the sequence, five of the mailbox, and twelve of an HMAC-SHA-256
// over the others.
package returnpath

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"hash"
	"slices"
	"strings"
)

// Error is why a path, a key or a token is of no use.
type Error struct{ Reason string }

func (e *Error) Error() string { return e.Reason }

// errForged is the same for whatever is wrong with a token: who tries learns nothing.
var errForged = &Error{"this is no token of ours"}

// Token is what a return path says.
type Token struct {
	// Sequence is that of the batch's claim in the outcomes stream, below 2^48.
	Sequence uint64
	// Mailbox is a short hash of the recipient (Minter.Mailbox, Opened.Is), below
	// 2^40. It is 0 if the token stands for the whole batch.
	Mailbox uint64
	Batch   bool // the token stands for the whole batch: the report names the recipient
}

const (
	mailboxBits = 40

	ofRecipient, ofBatch = 1, 2 // forms; a later one can have other contents

	signed  = 1 + 6 + 5
	octets  = signed + 12
	minKey  = 16
	letters = "abcdefghijklmnopqrstuvwxyz234567"
)

// Purpose is what the keys of return paths are derived for: [keys.Key.Derive].
const Purpose = "return path"

// Length is that of a token.
const Length = (octets*8 + 4) / 5

func encoding() *base32.Encoding { return base32.NewEncoding(letters).WithPadding(base32.NoPadding) }

// Keys open tokens; the first one makes them. Older ones stay until the mail that
// carries their tokens has come back.
type Keys struct {
	keys     [][]byte
	encoding *base32.Encoding
}

// NewKeys takes keys of 16 octets or more, the newest first.
func NewKeys(keys ...[]byte) (*Keys, error) {
	if len(keys) == 0 {
		return nil, &Error{"there is no key for return paths"}
	}
	k := &Keys{encoding: encoding()}
	for _, key := range keys {
		if len(key) < minKey {
			return nil, &Error{fmt.Sprintf("a key for return paths has %d octets: use %d or more", len(key), minKey)}
		}
		k.keys = append(k.keys, slices.Clone(key))
	}
	return k, nil
}

// Minter makes tokens. It is for one goroutine, and allocates nothing.
type Minter struct {
	mac      hash.Hash
	encoding *base32.Encoding
	sum      [sha256.Size]byte
	raw      [octets]byte
	text     [Length]byte
}

// Minter returns a new one, with the newest key.
func (k *Keys) Minter() *Minter {
	return &Minter{mac: hmac.New(sha256.New, k.keys[0]), encoding: k.encoding}
}

// Mint returns a token, which is valid until the next call.
func (m *Minter) Mint(t Token) []byte {
	form := byte(ofRecipient)
	if t.Batch {
		form = ofBatch
		t.Mailbox = 0
	}
	m.raw[0] = form
	putUint(m.raw[1:7], t.Sequence)
	putUint(m.raw[7:signed], t.Mailbox)
	copy(m.raw[signed:], sum(m.mac, &m.sum, "token", m.raw[:signed]))
	m.encoding.Encode(m.text[:], m.raw[:])
	return m.text[:]
}

// Mailbox returns the short hash of a mailbox. Its local part counts as it is
// written; case is folded where addresses are compared, not here.
func (m *Minter) Mailbox(mailbox string) uint64 {
	return mailboxHash(m.mac, &m.sum, mailbox)
}

// Opened is a token that is ours, with the key that made it.
type Opened struct {
	Token
	key []byte
}

// Is reports whether the token stands for a mailbox.
func (o *Opened) Is(mailbox string) bool {
	var room [sha256.Size]byte
	return !o.Batch && mailboxHash(hmac.New(sha256.New, o.key), &room, mailbox) == o.Mailbox
}

// Open reads a token. Whatever is wrong with one of the right length, it takes the
// same time and gives the same error.
func (k *Keys) Open(token string) (Opened, error) {
	if len(token) != Length {
		return Opened{}, errForged
	}
	var raw [octets]byte
	var again [Length]byte
	_, err := k.encoding.Decode(raw[:], []byte(token))
	// The last letter has bits to spare: one way to write a token counts.
	k.encoding.Encode(again[:], raw[:])
	good := subtle.ConstantTimeCompare(again[:], []byte(token))
	if err != nil {
		good = 0
	}
	var room [sha256.Size]byte
	which := -1
	for i, key := range k.keys {
		same := subtle.ConstantTimeCompare(sum(hmac.New(sha256.New, key), &room, "token", raw[:signed]), raw[signed:])
		which = subtle.ConstantTimeSelect(same&good, i, which)
	}
	if which < 0 || raw[0] != ofRecipient && raw[0] != ofBatch {
		return Opened{}, errForged
	}
	return Opened{
		Token: Token{Sequence: getUint(raw[1:7]), Mailbox: getUint(raw[7:signed]), Batch: raw[0] == ofBatch},
		key:   k.keys[which],
	}, nil
}

// sum is the MAC of data for one of the uses of a key, as long as a token has room for.
func sum(mac hash.Hash, room *[sha256.Size]byte, use string, data []byte) []byte {
	mac.Reset()
	room[0] = byte(len(use))
	copy(room[1:], use)
	mac.Write(room[:1+len(use)])
	mac.Write(data)
	return mac.Sum(room[:0])[:octets-signed]
}

func mailboxHash(mac hash.Hash, room *[sha256.Size]byte, mailbox string) uint64 {
	mac.Reset()
	mac.Write(room[:copy(room[:], "\x07mailbox")])
	for len(mailbox) > 0 { // in pieces: a string as a slice would be allocated
		n := copy(room[:], mailbox)
		mac.Write(room[:n])
		mailbox = mailbox[n:]
	}
	return getUint(mac.Sum(room[:0])[:mailboxBits/8])
}

func putUint(b []byte, v uint64) {
	for i := len(b) - 1; i >= 0; i-- {
		b[i] = byte(v)
		v >>= 8
	}
}

func getUint(b []byte) uint64 {
	var wide [8]byte
	copy(wide[8-len(b):], b)
	return binary.BigEndian.Uint64(wide[:])
}

// Path is a return path with a place for a token, "b+{token}@bounces.example.com".
type Path struct{ before, after string }

const place = "{token}"

// ParsePath reads one.
func ParsePath(s string) (Path, error) {
	before, after, ok := strings.Cut(s, place)
	local, domain, at := strings.Cut(after, "@")
	switch {
	case !ok || strings.Contains(after, place):
		return Path{}, &Error{fmt.Sprintf("%q has not one {token}: use b+{token}@bounces.example.com", s)}
	case !at || domain == "" || strings.ContainsAny(s, " \t\r\n<>\"\\(),:;") || strings.Count(s, "@") != 1:
		return Path{}, &Error{fmt.Sprintf("%q is no address with {token} before the @: use b+{token}@bounces.example.com", s)}
	case len(before)+Length+len(local) > 64:
		return Path{}, &Error{fmt.Sprintf("%q leaves no room for the token's %d octets: a local part has at most 64", s, Length)}
	}
	return Path{before, after}, nil
}

// Address returns the return path with a token.
func (p Path) Address(token []byte) string { return p.before + string(token) + p.after }

// Token returns what an address has in the place of the token. The rest is compared
// without regard to case.
func (p Path) Token(address string) (string, bool) {
	n := len(address) - len(p.before) - len(p.after)
	if n < 1 || !strings.EqualFold(address[:len(p.before)], p.before) || !strings.EqualFold(address[len(p.before)+n:], p.after) {
		return "", false
	}
	return address[len(p.before) : len(p.before)+n], true
}
