package subjects_test

import (
	"regexp"
	"testing"

	"pgregory.net/rapid"

	"bulkmail/subjects"
)

func TestAnyNameOfARelayMakesAKeyThatTellsIt(t *testing.T) {
	t.Parallel()
	// What NATS takes for one token of a key.
	token := regexp.MustCompile(`^relay\.[-/_=a-zA-Z0-9]+$`)
	for name, want := range map[string]string{
		"primary":           "relay.primary",
		"mx1.example.net":   "relay.mx1=2Eexample=2Enet",
		"smtp://[::1%eth0]": "relay.smtp=3A=2F=2F=5B=3A=3A1=25eth0=5D",
	} {
		if got := subjects.RelayKey(name); got != want {
			t.Errorf("%s: key %s, want %s", name, got, want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.StringN(1, 60, -1).Draw(t, "name")
		key := subjects.RelayKey(name)
		if !token.MatchString(key) {
			t.Fatalf("%q: %q is no key", name, key)
		}
		if got, ok := subjects.RelayOfKey(key); !ok || got != name {
			t.Fatalf("%q comes back as %q", name, got)
		}
	})
	for _, key := range []string{"worker.w1", "relay.=", "relay.=4", "relay.=zz", "primary"} {
		if name, ok := subjects.RelayOfKey(key); ok {
			t.Errorf("%s is taken for the key of relay %q", key, name)
		}
	}
}
