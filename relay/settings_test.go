package relay_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"bulkmail/relay"
)

func TestNoFormatOfAConfigShowsThePassword(t *testing.T) {
	t.Parallel()
	c := relay.Config{
		Name: "primary", Kind: relay.KindSMTP, Host: "mx.example.net", Port: 587,
		User: "news@example.com", Password: "hunter2", EnvelopeLimit: 100,
		MaxRate: relay.Rate{Messages: 14, Per: time.Second},
	}
	within := struct {
		Relay  relay.Config
		Relays []relay.Config
	}{c, []relay.Config{c}}
	var b bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%T"} {
		fmt.Fprintf(&b, verb+"\n", c)
		fmt.Fprintf(&b, verb+"\n", &c)
		fmt.Fprintf(&b, verb+"\n", within)
	}
	fmt.Fprintln(&b, c.URL(), c.String(), c.LogValue())
	for _, h := range []slog.Handler{slog.NewTextHandler(&b, nil), slog.NewJSONHandler(&b, nil)} {
		slog.New(h).Info("loaded", "relay", c, "pointer", &c, "within", within)
	}
	if err := json.NewEncoder(&b).Encode(within); err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{"hunter2", fmt.Sprintf("%x", "hunter2"), fmt.Sprintf("%X", "hunter2")} {
		if strings.Contains(b.String(), secret) {
			t.Errorf("%s is in\n%s", secret, b.String())
		}
	}
	const want = "primary smtp://news%40example.com:***@mx.example.net:587"
	if got := fmt.Sprint(c); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestAURLShowsWhereARelayIs(t *testing.T) {
	t.Parallel()
	for want, c := range map[string]relay.Config{
		"smtps://[2001:db8::1]:465":  {Kind: "smtps", Host: "2001:db8::1", Port: 465},
		"lmtp://[fe80::1%25eth0]:24": {Kind: "lmtp", Host: "fe80::1%eth0", Port: 24},
		"smtp://u:***@h:25":          {Kind: "smtp", Host: "h", Port: 25, User: "u", PasswordFile: "/run/secret"},
		"smtp://***:***@h:25":        {Kind: "smtp", Host: "h", Port: 25, User: "one-token-for-both", Password: "one-token-for-both"},
		"dummy://":                   {Kind: "dummy"},
		"dummy:///tmp/a%20b":         {Kind: "dummy", Path: "/tmp/a b"},
	} {
		if got := c.URL(); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}
