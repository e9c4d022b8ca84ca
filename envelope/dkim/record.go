package dkim

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
)

// Generate makes a private key, "rsa" of 2,048 bits or "ed25519", as PEM.
func Generate(kind string) ([]byte, error) {
	var key any
	var err error
	switch kind {
	case "rsa":
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	case "ed25519":
		_, key, err = ed25519.GenerateKey(rand.Reader)
	default:
		return nil, fmt.Errorf("the type %q is neither rsa nor ed25519", kind)
	}
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// maxString bounds a string of a TXT record (RFC 1035 3.3).
const maxString = 255

// ZoneRecord is the key's record as it stands in a zone file (RFC 1035 5.1).
func (k *Key) ZoneRecord() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s. IN TXT (", k.Name())
	for text := k.Record(); text != ""; {
		n := min(len(text), maxString)
		fmt.Fprintf(&b, " \"%s\"", text[:n])
		text = text[n:]
	}
	return b.String() + " )"
}

// Compare tells what is wrong with what is published for the key; nil: it is the
// key's record. Records that are for something else are passed over.
func (k *Key) Compare(published []string) error {
	own := tags(k.Record())
	var found []map[string]string
	for _, text := range published {
		if t := tags(text); t["p"] != "" || strings.Contains(text, "p=") {
			found = append(found, t)
		}
	}
	switch {
	case len(found) == 0:
		return errors.New("there is no DKIM record")
	case len(found) > 1:
		return errors.New("there is more than one DKIM record, and receivers read any of them")
	}
	t := found[0]
	kind := t["k"]
	if kind == "" {
		kind = "rsa"
	}
	switch {
	case t["v"] != "" && t["v"] != "DKIM1":
		return fmt.Errorf("its version is %q, not DKIM1", t["v"])
	case t["p"] == "":
		return errors.New("the key is revoked (p= is empty)")
	case kind != own["k"]:
		return fmt.Errorf("it is a key of type %s, the file has one of type %s", kind, own["k"])
	case t["p"] != own["p"] && !k.isPKCS1(t["p"]):
		return errors.New("it is another key than that of the file")
	case t["h"] != "" && !strings.Contains(t["h"], "sha256"):
		return fmt.Errorf("it is for h=%s alone, signatures are with sha256", t["h"])
	case strings.Contains(t["t"], "y"):
		return errors.New("it says t=y, testing: take that out")
	}
	return nil
}

// isPKCS1: RFC 6376 3.6.1 has the RSA key itself, most have it with its type
// around, and receivers read both.
func (k *Key) isPKCS1(p string) bool {
	public, ok := k.signer.Public().(*rsa.PublicKey)
	return ok && p == base64.StdEncoding.EncodeToString(x509.MarshalPKCS1PublicKey(public))
}

// tags reads a tag list (RFC 6376 3.2), without white space.
func tags(text string) map[string]string {
	t := make(map[string]string)
	for tag := range strings.SplitSeq(text, ";") {
		if name, value, ok := strings.Cut(tag, "="); ok {
			t[strings.TrimSpace(name)] = strings.Join(strings.Fields(value), "")
		}
	}
	return t
}
