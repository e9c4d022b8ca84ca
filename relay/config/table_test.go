package config_test

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"bulkmail/relay"
	"bulkmail/relay/config"
	"bulkmail/relay/smtp"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestEveryKeyIsDocumentedOnOneLine(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, k := range config.Keys() {
		if k.Name == "" || k.Value == "" || k.Doc == "" || strings.Contains(k.Doc, "\n") || seen[k.Name] {
			t.Errorf("key %+v", k)
		}
		seen[k.Name] = true
	}
	// Every attribute of Mail::Bulkmail's page that a file can set.
	for _, seed := range []string{
		"Smtp", "Port", "Domain", "Tries", "max_connection_attempts", "envelope_limit", "max_messages",
		"max_messages_per_robin", "max_messages_per_connection", "max_messages_while_awake", "sleep_length",
		"talk_attempts", "time_out", "CONVERSATION",
	} {
		found := false
		for _, k := range config.Keys() {
			found = found || k.Seed == seed
		}
		if !found {
			t.Errorf("Mail::Bulkmail's %s has no key", seed)
		}
	}
}

// Whoever adds a field to relay.Config finds out here that no form can set it.
func TestEveryFieldCanBeConfigured(t *testing.T) {
	t.Parallel()
	const auth = "?name=n&domain=d.example&tries=2&max_connection_attempts=2&worthless_for=2s&envelope_limit=2&max_messages=2" +
		"&max_messages_window=2s&max_messages_spread=yes&max_rate=2/s&max_messages_per_robin=2&max_messages_per_connection=2&max_messages_while_awake=2" +
		"&sleep_length=2s&talk_attempts=2&time_out=2s&connections=2&adaptive=true&tls=required&tls_verify=false&auth=LOGIN&auth_in_clear=on&overlap=on&dkim=off&dkim_unsigned=Message-ID,Date&return_path=off&conversation=c"
	full := loadURLs(t, "smtp://u:p@h.example:26"+auth)[0]
	// What excludes something of the above.
	apart := map[string]bool{"Path": true, "TLSCA": true, "TLSCert": true, "TLSKey": true, "PasswordFile": true}
	v := reflect.ValueOf(full)
	keys := 0
	for i := range v.NumField() {
		name := v.Type().Field(i).Name
		if name != "Where" {
			keys++
		}
		if v.Field(i).IsZero() && !apart[name] {
			t.Errorf("%s is not set", name)
		}
	}
	if n := len(config.Keys()); n != keys {
		t.Errorf("%d keys for %d fields", n, keys)
	}
}

// anyRelay draws a relay as Load would return it.
func anyRelay(t *rapid.T, name string) relay.Config {
	count := func(label string, least int) int { return rapid.IntRange(least, 1000).Draw(t, label) }
	limit := func(label string) int { return either(count(label, 0), relay.None) }
	text := rapid.StringMatching(`[ -~äß€]{1,20}`)
	c := relay.Config{
		Name:   name,
		Kind:   rapid.SampledFrom([]string{"smtp", "smtps", "lmtp", "dummy"}).Draw(t, "kind"),
		Domain: rapid.SampledFrom([]string{"a.example", "[192.0.2.1]", "[IPv6:2001:db8::1]", "localhost"}).Draw(t, "domain"),
		Tries:  count("tries", 1), MaxConnectionAttempts: count("max_connection_attempts", 1),
		EnvelopeLimit: limit("envelope_limit"), EnvelopeDomains: limit("envelope_domains"), MaxMessagesPerRobin: limit("max_messages_per_robin"),
		MaxMessages: count("max_messages", 0), MaxMessagesPerConnection: count("max_messages_per_connection", 0),
		TalkAttempts: count("talk_attempts", 1), Connections: count("connections", 1), Adaptive: rapid.Bool().Draw(t, "adaptive"),
		Overlap:      rapid.SampledFrom([]string{"off", "on", "auto"}).Draw(t, "overlap"),
		DKIM:         rapid.SampledFrom([]string{relay.On, relay.Off}).Draw(t, "dkim"),
		DKIMUnsigned: rapid.SampledFrom([]string{"", "message-id,date"}).Draw(t, "dkim_unsigned"),
		ReturnPath:   rapid.SampledFrom([]string{relay.On, relay.Off}).Draw(t, "return_path"),
		Conversation: rapid.SampledFrom([]string{"", "stderr", "/var/log/a b&c=d#e%f+g"}).Draw(t, "conversation"),
	}
	wait := func(label string) time.Duration {
		unit := rapid.SampledFrom([]time.Duration{time.Millisecond, time.Second, time.Minute, time.Hour}).Draw(t, label+" unit")
		return unit * time.Duration(count(label, 0))
	}
	c.WorthlessFor = either(wait("worthless_for"), relay.None)
	c.TimeOut = wait("time_out")
	if c.MaxMessages > 0 {
		c.MaxMessagesWindow = wait("max_messages_window")
		c.MaxMessagesSpread = c.MaxMessagesWindow > 0 && rapid.Bool().Draw(t, "max_messages_spread")
	}
	if rapid.Bool().Draw(t, "sleeps") {
		c.MaxMessagesWhileAwake, c.SleepLength = count("max_messages_while_awake", 1), time.Second+wait("sleep_length")
	}
	if rapid.Bool().Draw(t, "rated") {
		c.MaxRate = relay.Rate{Messages: count("rate", 1), Per: time.Second + wait("per")}
	}
	if c.Kind == "dummy" {
		c.Path = rapid.SampledFrom([]string{"", "/tmp/a b", "/tmp/ü?x=1#2@3%41"}).Draw(t, "path")
		return c
	}
	c.Host = rapid.SampledFrom([]string{"a.example", "xn--bcher-kva.example", "192.0.2.1", "2001:db8::1", "fe80::1%eth0", "mx_1.example."}).Draw(t, "host")
	c.Port = rapid.SampledFrom([]int{1, 2525, 65535}).Draw(t, "port")
	secret := rapid.Bool().Draw(t, "login")
	if secret {
		c.User, c.Password = text.Draw(t, "user"), text.Draw(t, "password")
		c.Auth = rapid.SampledFrom([]string{"", "PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-256", "XOAUTH2"}).Draw(t, "auth")
		c.AuthInClear = rapid.Bool().Draw(t, "auth_in_clear")
	}
	c.TLS = rapid.SampledFrom([]string{"none", "opportunistic", "required"}).Draw(t, "tls")
	switch {
	case c.Kind == "smtps":
		c.TLS = "implicit"
	case c.TLS == "none":
		c.AuthInClear = secret
	}
	if c.TLS != "none" && rapid.Bool().Draw(t, "tls_verify") { // otherwise than the mode has it
		c.TLSVerify = smtp.VerifyNever
		if c.TLS == "opportunistic" {
			c.TLSVerify = smtp.VerifyAlways
		}
	}
	return c
}

// either is n, or no limit.
func either[T int | time.Duration](n, none T) T {
	if n == 0 {
		return none
	}
	return n
}

func TestARelayWrittenAsURLOrYAMLReadsBackTheSame(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var want []relay.Config
		var urls []string
		for i := range rapid.IntRange(1, 3).Draw(t, "relays") {
			c := anyRelay(t, fmt.Sprint("relay", i))
			want = append(want, c)
			urls = append(urls, config.URL(c))
		}
		check := func(form string, got []relay.Config, err error) {
			if err != nil {
				t.Fatalf("%s: %v", form, err)
			}
			for i := range got {
				got[i].Where = ""
			}
			type plain relay.Config
			for i := range want {
				if diff := cmp.Diff(plain(want[i]), plain(got[i])); diff != "" {
					t.Fatalf("%s (-want +got):\n%s", form, diff)
				}
			}
		}
		got, err := config.Load(strings.Join(urls, " "), "", quiet(""))
		check(strings.Join(urls, " "), got, err)

		text := config.YAML(want)
		got, err = config.Load("", "relays", onDisk(map[string]string{"relays": string(text)}))
		check(string(text), got, err)
	})
}

// However a URL is mangled, no message shows the password.
func TestNoProblemShowsAPassword(t *testing.T) {
	t.Parallel()
	const secret = "hunter2"
	rapid.Check(t, func(t *rapid.T) {
		around := rapid.StringMatching(`[a-z0-9:/?#@%&=. \[\]+-]{0,4}`)
		url := rapid.SampledFrom([]string{"smtp://", "smtps://", "smtp:", "//", "", "lmtp://", "x://", "dummy://"}).Draw(t, "scheme") +
			rapid.StringMatching(`[a-z:/?#@%]{0,5}`).Draw(t, "user") + ":" +
			around.Draw(t, "before") + secret + around.Draw(t, "after") + "@" +
			rapid.SampledFrom([]string{"mx.example", "mx.example:x", "[::1", "", "a b"}).Draw(t, "host") +
			rapid.SampledFrom([]string{"", "?tries=0", "?colour=red", "/path", "#f", "?tls=none", "?password=x", "?name=%"}).Draw(t, "end")
		relays, err := config.Load(url, "", quiet(""))
		if err != nil && strings.Contains(err.Error(), secret) {
			t.Fatalf("%s\n%v", url, err)
		}
		for _, c := range relays {
			if c.Password != "" && !strings.Contains(c.Host+c.User+c.Path, secret) && strings.Contains(fmt.Sprintf("%v %+v %#v %x", c, c, c, c), secret) {
				t.Fatalf("%s\n%v", url, c)
			}
		}
	})
}

func TestValuesHoldEveryKeyAndNoSecret(t *testing.T) {
	t.Parallel()
	relays, err := config.Load("smtp://ann:s3cret@mx.example.net?max_messages=5&max_messages_window=24h&tls=required&domain=client.test", "", onDisk(nil))
	if err != nil {
		t.Fatal(err)
	}
	values := config.Values(relays[0])
	for _, key := range config.Keys() {
		if _, ok := values[key.Name]; ok == key.Secret {
			t.Errorf("%s: in the values %t, secret %t", key.Name, ok, key.Secret)
		}
	}
	for name, want := range map[string]any{"host": "mx.example.net", "port": 25, "max_messages": 5, "max_messages_window": "24h", "tls_verify": true, "user": "ann"} {
		if values[name] != want {
			t.Errorf("%s is %v, want %v", name, values[name], want)
		}
	}
}

// A Config from here and one that was written in Go mean the same.
func TestWhatIsReadHasTheDefaultsOfAZeroConfig(t *testing.T) {
	t.Parallel()
	for url, c := range map[string]relay.Config{
		"smtp://mx.example":         {Host: "mx.example"},
		"smtp://u:p@mx.example:587": {Host: "mx.example", Port: 587, User: "u", Password: "p"},
		"smtps://mx.example":        {Kind: "smtps", Host: "mx.example"},
		"lmtp://mx.example":         {Kind: "lmtp", Host: "mx.example"},
	} {
		got := loadURLs(t, url)[0]
		c.Domain, c.Where = got.Domain, got.Where
		same(t, []relay.Config{got}, []relay.Config{c.WithDefaults(1)})
	}
}
