package keys

import (
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"strings"
)

// A Maker makes Message-IDs and tokens of one key. It keeps what it needs for
// the next one, and so serves one goroutine.
type Maker struct {
	key       *Key
	messageID hash.Hash
	mac       hash.Hash
	text, raw []byte
	sum       [sha256.Size]byte
}

// Maker makes a maker.
func (k *Key) Maker() *Maker {
	return &Maker{key: k, messageID: hmac.New(sha256.New, k.messageID), mac: hmac.New(sha256.New, k.tokenMAC)}
}

// Key is the key that it makes of.
func (m *Maker) Key() *Key { return m.key }

// AppendMessageID appends what stands before the @ of a Message-ID: 32 letters
// and digits, made of 160 bits of an HMAC. The same campaign, batch and mailbox
// make the same. For a message to many, batch is "" and mailbox the message's
// digest.
func (m *Maker) AppendMessageID(dst []byte, campaign, batch, mailbox string) []byte {
	m.text = append(m.text[:0], campaign...)
	m.text = append(append(m.text, 0), batch...)
	m.text = append(append(m.text, 0), mailbox...)
	m.messageID.Reset()
	m.messageID.Write(m.text)
	sum := m.messageID.Sum(m.sum[:0])
	return encoding.AppendEncode(dst, sum[:20])
}

const (
	tokenVersion = 1
	ivSize       = 16
)

// A Subscription is what an unsubscribe token stands for.
type Subscription struct {
	Campaign string
	List     string // "": the campaign has none
	Mailbox  string // as said in RCPT TO
}

// AppendToken appends the unsubscribe token.
func (m *Maker) AppendToken(dst []byte, s Subscription) []byte {
	m.text = binary.AppendUvarint(m.text[:0], uint64(len(s.Campaign)))
	m.text = append(m.text, s.Campaign...)
	m.text = binary.AppendUvarint(m.text, uint64(len(s.List)))
	m.text = append(m.text, s.List...)
	m.text = append(m.text, s.Mailbox...)
	m.raw = append(m.raw[:0], tokenVersion)
	m.raw = append(m.raw, m.iv(m.text)...)
	m.raw = append(m.raw, m.text...)
	iv, text := m.raw[1:1+ivSize], m.raw[1+ivSize:]
	cipher.NewCTR(m.key.token, iv).XORKeyStream(text, text)
	return encoding.AppendEncode(dst, m.raw)
}

// iv authenticates the text, and is its initialisation vector.
func (m *Maker) iv(text []byte) []byte {
	m.mac.Reset()
	m.raw = append(m.raw[:1], m.key.ID...)
	m.raw = append(m.raw, 0)
	m.mac.Write(m.raw)
	m.raw = m.raw[:1]
	m.mac.Write(text)
	return m.mac.Sum(m.sum[:0])[:ivSize]
}

// Read finds what the token stands for. A token that none of the keys has made
// is not ok, whatever is wrong with it.
func (keys Keys) Read(token string) (s Subscription, ok bool) {
	raw, err := encoding.DecodeString(strings.ToLower(token))
	if err != nil || len(raw) < 1+ivSize+2 || raw[0] != tokenVersion {
		return s, false
	}
	iv, sealed := raw[1:1+ivSize], raw[1+ivSize:]
	text := make([]byte, len(sealed))
	for _, k := range keys {
		cipher.NewCTR(k.token, iv).XORKeyStream(text, sealed)
		m := k.Maker()
		m.raw = append(m.raw, tokenVersion)
		if hmac.Equal(m.iv(text), iv) {
			return readSubscription(text)
		}
	}
	return s, false
}

func readSubscription(text []byte) (s Subscription, ok bool) {
	var fields [2]string
	for i := range fields {
		n, size := binary.Uvarint(text)
		if size <= 0 || n > uint64(len(text)-size) {
			return s, false
		}
		fields[i] = string(text[size : size+int(n)])
		text = text[size+int(n):]
	}
	return Subscription{Campaign: fields[0], List: fields[1], Mailbox: string(text)}, true
}
