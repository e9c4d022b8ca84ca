package smtp

import (
	"bytes"
	"crypto/hmac"
	"crypto/md5" //nolint:gosec // what CRAM-MD5 is made of
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Mechanisms that go-sasl does not have, or has too strictly.

// login answers whatever the server asks for first with the user and then with
// the password: the draft that describes LOGIN was never a standard, and the
// words of the challenges differ.
type login struct {
	credentials
	asked int
}

func (m *login) Start() (string, []byte, error) { return "LOGIN", nil, nil }

func (m *login) Next([]byte) ([]byte, error) {
	m.asked++
	switch m.asked {
	case 1:
		return []byte(m.user), nil
	case 2:
		return []byte(m.password), nil
	}
	return nil, errors.New("one challenge too many")
}

// cramMD5 is RFC 2195.
type cramMD5 struct{ credentials }

func (m *cramMD5) Start() (string, []byte, error) { return "CRAM-MD5", nil, nil }

func (m *cramMD5) Next(challenge []byte) ([]byte, error) {
	h := hmac.New(md5.New, []byte(m.password))
	h.Write(challenge)
	return []byte(m.user + " " + hex.EncodeToString(h.Sum(nil))), nil
}

// xoauth2 is Google's and Microsoft's bearer token.
type xoauth2 struct{ credentials }

func (m *xoauth2) Start() (string, []byte, error) {
	return "XOAUTH2", []byte("user=" + m.user + "\x01auth=Bearer " + m.password + "\x01\x01"), nil
}

// Next answers the error that comes as a challenge; the refusal follows.
func (m *xoauth2) Next([]byte) ([]byte, error) { return []byte{}, nil }

// scram is SCRAM-SHA-256 (RFC 5802, RFC 7677) without channel binding.
type scram struct {
	credentials
	nonce     string
	bare      string
	signature []byte
	step      int
	verified  bool
}

const (
	scramHeader        = "n,,"
	scramMaxIterations = 1 << 20 // what a server may make us compute
)

func newSCRAM(c credentials) (*scram, error) {
	random := make([]byte, 18)
	if _, err := rand.Read(random); err != nil {
		return nil, err
	}
	return &scram{credentials: c, nonce: base64.RawStdEncoding.EncodeToString(random)}, nil
}

func (m *scram) Start() (string, []byte, error) {
	user := strings.NewReplacer("=", "=3D", ",", "=2C").Replace(m.user)
	m.bare = "n=" + user + ",r=" + m.nonce
	return "SCRAM-SHA-256", []byte(scramHeader + m.bare), nil
}

func (m *scram) Next(challenge []byte) ([]byte, error) {
	m.step++
	switch m.step {
	case 1:
		return m.prove(string(challenge))
	case 2:
		want := base64.StdEncoding.EncodeToString(m.signature)
		got, ok := bytes.CutPrefix(challenge, []byte("v="))
		if !ok || subtle.ConstantTimeCompare(got, []byte(want)) != 1 {
			return nil, errImpostor
		}
		m.verified = true
		return []byte{}, nil
	}
	return nil, errors.New("one challenge too many")
}

func (m *scram) prove(first string) ([]byte, error) {
	var nonce, salt string
	iterations := 0
	for field := range strings.SplitSeq(first, ",") {
		name, value, _ := strings.Cut(field, "=")
		switch name {
		case "m":
			return nil, errors.New("an extension of SCRAM that we do not know")
		case "r":
			nonce = value
		case "s":
			salt = value
		case "i":
			iterations, _ = strconv.Atoi(value)
		}
	}
	if !strings.HasPrefix(nonce, m.nonce) || len(nonce) == len(m.nonce) {
		return nil, errors.New("the nonce is not ours")
	}
	if iterations < 1 || iterations > scramMaxIterations {
		return nil, fmt.Errorf("%d iterations", iterations)
	}
	rawSalt, err := base64.StdEncoding.DecodeString(salt)
	if err != nil {
		return nil, err
	}
	salted, err := pbkdf2.Key(sha256.New, m.password, rawSalt, iterations, sha256.Size)
	if err != nil {
		return nil, err
	}
	clientKey := mac(salted, "Client Key")
	storedKey := sha256.Sum256(clientKey)
	final := "c=" + base64.StdEncoding.EncodeToString([]byte(scramHeader)) + ",r=" + nonce
	message := m.bare + "," + first + "," + final
	proof := mac(storedKey[:], message)
	subtle.XORBytes(proof, proof, clientKey)
	m.signature = mac(mac(salted, "Server Key"), message)
	return []byte(final + ",p=" + base64.StdEncoding.EncodeToString(proof)), nil
}

// proven: some servers send their signature with the 235 instead of a
// challenge, where it cannot be told from text. Those count as unproven.
func (m *scram) proven() bool { return m.verified }

func mac(key []byte, message string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(message))
	return h.Sum(nil)
}
