// Package dkim signs messages (RFC 6376 with RFC 8301 and RFC 8463):
// rsa-sha256 and ed25519-sha256, relaxed/relaxed, without l=, and without x=
// unless asked for.
//
// [Load] reads the keys, [Keys.For] chooses those that are aligned with From as
// DMARC wants it (RFC 7489 3.1), and [Signer.Append] makes the fields that go in
// front of a message. [Record] is what a key's owner publishes.
package dkim

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"bulkmail/envelope/conffile"

	"golang.org/x/net/publicsuffix"
)

// A Key signs for a domain. It does not change and may be shared.
type Key struct {
	Domain   string // d=
	Selector string // s=
	signer   crypto.Signer
	hash     crypto.Hash // what Sign wants to be told
}

// Keys are the keys of a file.
type Keys []*Key

// NewKey is the key of the PEM text: PKCS #1 or PKCS #8, RSA of 1,024 bits or
// more (RFC 8301 3.2) or Ed25519.
func NewKey(domain, selector string, text []byte) (*Key, error) {
	if domain = strings.ToLower(domain); !validName(domain) {
		return nil, fmt.Errorf("the domain %q is not a domain name: write it in ASCII", domain)
	}
	if !validName(selector) {
		return nil, fmt.Errorf("the selector %q is not a label, or labels with dots between them", selector)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("not PEM: a private key begins with -----BEGIN")
	}
	var parsed any
	var err error
	switch block.Type {
	case "RSA PRIVATE KEY":
		parsed, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "PRIVATE KEY":
		parsed, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	default:
		return nil, fmt.Errorf("it is a PEM of %q: give an unencrypted private key, PKCS #1 or PKCS #8", block.Type)
	}
	if err != nil {
		return nil, err
	}
	k := &Key{Domain: domain, Selector: selector}
	switch key := parsed.(type) {
	case *rsa.PrivateKey:
		if bits := key.N.BitLen(); bits < 1024 {
			return nil, fmt.Errorf("an RSA key of %d bits, which nobody believes: make one of 2,048", bits)
		}
		k.signer, k.hash = key, crypto.SHA256
	case ed25519.PrivateKey:
		k.signer = key
	default:
		return nil, errors.New("neither RSA nor Ed25519")
	}
	return k, nil
}

func validName(s string) bool {
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || strings.Trim(label, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != "" {
			return false
		}
	}
	return len(s) <= 253
}

// Load reads a file of keys, and the keys that it names. Every problem is told.
//
//	keys:
//	  - domain: example.com
//	    selector: s1
//	    key_file: s1.pem # relative to this file
func Load(file string) (Keys, error) {
	text, err := conffile.Read(file)
	if err != nil {
		return nil, err
	}
	var content struct {
		Keys []struct {
			Domain   string `yaml:"domain"`
			Selector string `yaml:"selector"`
			KeyFile  string `yaml:"key_file"`
		} `yaml:"keys"`
	}
	if err := conffile.Unmarshal(text, &content); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	var keys Keys
	var problems []error
	for i, entry := range content.Keys {
		name := fmt.Sprintf("%s: keys[%d]", file, i)
		if entry.Domain == "" || entry.Selector == "" || entry.KeyFile == "" {
			problems = append(problems, fmt.Errorf("%s: give domain, selector and key_file", name))
			continue
		}
		path := entry.KeyFile
		if !filepath.IsAbs(path) {
			path = filepath.Join(filepath.Dir(file), path)
		}
		text, err := conffile.Read(path)
		if err != nil {
			problems = append(problems, fmt.Errorf("%s: key_file: %w", name, err))
			continue
		}
		k, err := NewKey(entry.Domain, entry.Selector, text)
		if err != nil {
			problems = append(problems, fmt.Errorf("%s (%s): %w", name, path, err))
			continue
		}
		keys = append(keys, k)
	}
	if len(content.Keys) == 0 {
		problems = append(problems, fmt.Errorf("%s: there is no key in it: give keys, each with domain, selector and key_file", file))
	}
	return keys, errors.Join(problems...)
}

// For is the keys that sign for a From of the domain: all whose domain has the
// same organizational domain.
func (keys Keys) For(domain string) Keys {
	domain = strings.ToLower(domain)
	var aligned Keys
	for _, k := range keys {
		if Aligned(k.Domain, domain) {
			aligned = append(aligned, k)
		}
	}
	return aligned
}

// Aligned tells whether two domains have the same organizational domain (relaxed
// alignment, RFC 7489 3.1.1), after the public suffix list.
func Aligned(a, b string) bool {
	return strings.EqualFold(Organization(a), Organization(b))
}

// Organization is the organizational domain of a domain.
func Organization(domain string) string {
	domain = strings.ToLower(strings.TrimSuffix(domain, "."))
	if org, err := publicsuffix.EffectiveTLDPlusOne(domain); err == nil {
		return org
	}
	return domain
}

// Algorithm is a= of its signatures.
func (k *Key) Algorithm() string {
	if k.hash == 0 {
		return "ed25519-sha256"
	}
	return "rsa-sha256"
}

// Bits is the size of an RSA key, 256 for Ed25519.
func (k *Key) Bits() int {
	if key, ok := k.signer.(*rsa.PrivateKey); ok {
		return key.N.BitLen()
	}
	return 256
}

// Name is where the key's record stands.
func (k *Key) Name() string { return k.Selector + "._domainkey." + k.Domain }

// Record is the text of the key's TXT record (RFC 6376 3.6.1, RFC 8463 4).
func (k *Key) Record() string {
	switch public := k.signer.Public().(type) {
	case ed25519.PublicKey:
		return "v=DKIM1; k=ed25519; p=" + base64.StdEncoding.EncodeToString(public)
	case *rsa.PublicKey:
		der, err := x509.MarshalPKIXPublicKey(public)
		if err != nil {
			panic(err) // an RSA key always has this form
		}
		return "v=DKIM1; k=rsa; p=" + base64.StdEncoding.EncodeToString(der)
	}
	panic("a key is RSA or Ed25519")
}
