// Package keys holds the secrets of which Message-IDs and unsubscribe tokens
// are made.
//
// A keys file has a line a key, "ID SECRET"; empty lines and lines that begin
// with # are left out. The first key makes what is new, all of them read what
// was made before: a rotation puts a key in front ([Add]), and a key can go once
// nothing of it is around any more. For unsubscribe tokens that is 60 days after
// the last letter at least.
//
// No secret is used twice: each purpose has a key of its own, derived by
// HMAC-SHA-256 ([Key.Derive]).
//
// # The unsubscribe token
//
// Whoever serves unsubscribes has to find campaign, list and mailbox in the
// token and nowhere else, and nobody else may. So the three are encrypted, and
// deterministically, as a letter that is sent again must be the same letter.
// It is the construction of SIV (RFC 5297) with HMAC-SHA-256 in the place of
// S2V:
//
//	text  = uvarint(len(campaign)) campaign uvarint(len(list)) list mailbox
//	iv    = HMAC-SHA-256(Derive("unsubscribe token mac"), 0x01 id 0x00 text), the first 16 octets
//	token = 0x01 iv AES-256-CTR(Derive("unsubscribe token encryption"), iv, text)
//
// in base32 (RFC 4648) without padding, written in lower case, read in either.
// The id of the key is in the MAC but not in the token: a token is tried with
// every key. It has (17 + the text's length) · 8/5 characters, some 110.
package keys

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"fmt"
	"strings"
)

// An Error is a keys file that cannot be used.
type Error struct {
	Line   int // 0: the file as a whole
	Reason string
}

func (e *Error) Error() string {
	if e.Line == 0 {
		return e.Reason
	}
	return fmt.Sprintf("line %d: %s", e.Line, e.Reason)
}

// A Key is one secret. It does not change and may be shared.
type Key struct {
	ID     string
	secret string

	messageID []byte // derived
	tokenMAC  []byte
	token     cipher.Block
}

// minSecret is 128 bits in base64.
const minSecret = 22

// New is the key with the id and the secret.
func New(id, secret string) (*Key, error) {
	if !validID(id) {
		return nil, &Error{Reason: fmt.Sprintf("the id %q is not 1 to 64 letters, digits, _ or -", id)}
	}
	if len(secret) < minSecret {
		return nil, &Error{Reason: fmt.Sprintf("the secret of %s is shorter than %d characters: let `bulkmail keys new` make one", id, minSecret)}
	}
	k := &Key{ID: id, secret: secret}
	k.messageID = k.Derive("message id")
	k.tokenMAC = k.Derive("unsubscribe token mac")
	block, err := aes.NewCipher(k.Derive("unsubscribe token encryption"))
	if err != nil {
		return nil, err
	}
	k.token = block
	return k, nil
}

// Generate makes a new key.
func Generate(id string) (*Key, error) {
	var secret [32]byte
	if _, err := rand.Read(secret[:]); err != nil {
		return nil, err
	}
	return New(id, base64.RawURLEncoding.EncodeToString(secret[:]))
}

// Derive is the 32 octets for a purpose.
func (k *Key) Derive(purpose string) []byte {
	h := hmac.New(sha256.New, []byte(k.secret))
	h.Write([]byte("bulkmail " + purpose))
	return h.Sum(nil)
}

// Line is the key as it stands in a keys file.
func (k *Key) Line() string { return k.ID + " " + k.secret }

// Keys are the keys of a file, in its order.
type Keys []*Key

// Parse reads a keys file. The error is an *[Error].
func Parse(file string) (Keys, error) {
	var keys Keys
	number := 0
	for line := range strings.Lines(file) {
		number++
		fields := strings.Fields(line)
		if len(fields) == 0 || fields[0][0] == '#' {
			continue
		}
		if len(fields) != 2 {
			return nil, &Error{number, "a line has an id and a secret, with a blank between them"}
		}
		k, err := New(fields[0], fields[1])
		if err != nil {
			return nil, &Error{number, err.Error()}
		}
		if keys.Find(k.ID) != nil {
			return nil, &Error{number, "the id " + k.ID + " is there already"}
		}
		keys = append(keys, k)
	}
	if len(keys) == 0 {
		return nil, &Error{Reason: "there is no key in it: let `bulkmail keys new` make one"}
	}
	return keys, nil
}

// Add puts the key in front of those in the text of a keys file; comments at its
// beginning stay there.
func Add(file string, k *Key) string {
	var head strings.Builder
	rest := file
	for rest != "" {
		line, after, _ := strings.Cut(rest, "\n")
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			break
		}
		head.WriteString(line + "\n")
		rest = after
	}
	if rest != "" && !strings.HasSuffix(rest, "\n") {
		rest += "\n"
	}
	return head.String() + k.Line() + "\n" + rest
}

// First is the key that makes what is new, nil if there is none.
func (keys Keys) First() *Key {
	if len(keys) == 0 {
		return nil
	}
	return keys[0]
}

// Find is the key with the id, or nil.
func (keys Keys) Find(id string) *Key {
	for _, k := range keys {
		if k.ID == id {
			return k
		}
	}
	return nil
}

func validID(id string) bool {
	for _, c := range []byte(id) {
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_') {
			return false
		}
	}
	return id != "" && len(id) <= 64
}

// encoding is that of tokens and Message-IDs: letters and digits alone, and
// nothing lost when somebody on the way changes their case.
var encoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)
