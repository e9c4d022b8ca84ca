package config_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bulkmail/relay/config"
)

// pair is a certificate and its key in PEM form.
func pair(t *testing.T) (cert, key string) {
	t.Helper()
	secret, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, secret.Public(), secret)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(secret)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}))
}

func TestTheFilesOfARelayAreTriedBeforeItIsUsed(t *testing.T) {
	t.Parallel()
	cert, key := pair(t)
	_, otherKey := pair(t)
	opt := onDisk(map[string]string{"cert": cert, "key": key, "other": otherKey, "pw": "secret\n", "blank": " \n"})
	for query, problem := range map[string]string{
		"tls=required&tls_ca=cert&tls_cert=cert&tls_key=key": "",
		"user=u&password_file=pw":                            "",
		"user=u&password_file=blank":                         "password_file: blank is empty",
		"user=u&password_file=none":                          "password_file: none cannot be read: file does not exist",
		"tls=required&tls_ca=key":                            "tls_ca: key holds no certificate in PEM form",
		"tls_cert=cert&tls_key=other":                        "tls_cert: does not go with tls_key: private key does not match public key",
		"tls_cert=cert&tls_key=none":                         "tls_key: none cannot be read",
	} {
		t.Run(query, func(t *testing.T) {
			t.Parallel()
			_, err := config.Load("smtp://mx.example.net?"+query, "", opt)
			switch {
			case problem == "" && err != nil:
				t.Error(err)
			case problem != "" && (err == nil || !strings.HasPrefix(err.Error(), "BULKMAIL_RELAYS, URL 1: "+problem) || strings.Contains(err.Error(), "\n")):
				t.Errorf("got %v, want %s", err, problem)
			}
		})
	}
}

func TestFilesComeFromTheDiskUnlessToldOtherwise(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	small, large := filepath.Join(dir, "small"), filepath.Join(dir, "large")
	for name, text := range map[string]string{
		small: "relays: [{host: mx.example.net, domain: news.example.com}]",
		large: "# " + strings.Repeat("x", 1<<20) + "\nrelays: [{host: mx.example.net}]",
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if relays, err := config.Load("", small, config.Options{}); err != nil || names(relays) != "mx.example.net" {
		t.Errorf("got %v, %v", relays, err)
	}
	for name, want := range map[string]string{
		large:                         large + ": cannot be read: larger than 1 MiB: name another file, or make it smaller",
		dir:                           dir + ": cannot be read: is a directory",
		filepath.Join(dir, "missing"): filepath.Join(dir, "missing") + ": cannot be read: no such file or directory",
	} {
		if _, err := config.Load("", name, config.Options{}); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestAFileThatIsMadeToDoHarmIsRefusedInALine(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"relays:\n  - " + strings.Repeat("[", 20_000):                                    "file:2: nested more than 32 levels deep: take levels out",
		"relays:\n" + strings.Repeat("- \n", 40_000):                                     "file: more than 60000 lines, keys and values: name another file, or make it smaller",
		"relays:\n" + strings.Repeat("- host: mx.example.net\n", 1_001):                  "file: 1001 relays, which is more than 1000: take some out",
		"define package Mail::Bulkmail::Server\n" + strings.Repeat("Smtp @= a\n", 2_000): "file: 2000 relays, which is more than 1000: take some out",
		"defaults:\n" + strings.Repeat("  port: 25\n", 2_000) + "relays: []":             "file:1002: more than 1000 keys in one mapping: take some out",
	} {
		if _, err := config.Load("", "file", onDisk(map[string]string{"file": text})); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// 500 relays with a thousand unknown keys each, in 15 KB, or 100,000 lines.
func TestAHundredProblemsAreEnough(t *testing.T) {
	t.Parallel()
	var text strings.Builder
	text.WriteString("defaults: &a\n")
	for i := range 999 {
		fmt.Fprintf(&text, "  k%d: v\n", i)
	}
	text.WriteString("relays:\n" + strings.Repeat("- <<: *a\n", 500))
	for _, file := range []string{text.String(), "define package Mail::Bulkmail::Server\n" + strings.Repeat("xx = 25\n", 100_000)} {
		_, err := config.Load("", "file", onDisk(map[string]string{"file": file}))
		problems, _ := errors.AsType[config.Problems](err)
		if len(problems) != 101 || !strings.Contains(problems[100].Reason, "there may be more than these 100 problems") {
			t.Errorf("got %d problems, %v", len(problems), err)
		}
	}
}

func TestWithoutADomainTheHostStillHasSomethingToSay(t *testing.T) {
	t.Parallel()
	relays, err := config.Load("smtp://mx.example.net", "", config.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if d := relays[0].Domain; !strings.Contains(d, ".") && !strings.HasPrefix(d, "[") {
		t.Errorf("got %q: neither a full name nor an address literal", d)
	}
}
