package config_test

import (
	"errors"
	"io/fs"
	"net"
	"strings"
	"testing"
	"time"

	"bulkmail/relay"
	"bulkmail/relay/config"
)

// onDisk are options whose files are these texts.
func onDisk(files map[string]string) config.Options {
	opt := quiet("")
	opt.ReadFile = func(name string) ([]byte, error) {
		data, ok := files[name]
		if !ok {
			return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
		}
		return []byte(data), nil
	}
	return opt
}

func loadURLs(t *testing.T, urls string) []relay.Config {
	t.Helper()
	relays, err := config.Load(urls, "", quiet(""))
	if err != nil {
		t.Fatal(err)
	}
	return relays
}

func loadText(t *testing.T, text string) []relay.Config {
	t.Helper()
	relays, err := config.Load("", "relays", onDisk(map[string]string{"relays": text}))
	if err != nil {
		t.Fatal(err)
	}
	return relays
}

// problemsOf are the lines of the error that a text causes.
func problemsOf(t *testing.T, text string) []string {
	t.Helper()
	_, err := config.Load("", "relays", onDisk(map[string]string{"relays": text}))
	if err == nil {
		t.Fatal("no problem found")
	}
	return strings.Split(err.Error(), "\n")
}

func names(relays []relay.Config) string {
	var list []string
	for _, c := range relays {
		list = append(list, c.Name)
	}
	return strings.Join(list, " ")
}

func TestPercentEscapesInAURLAreUndone(t *testing.T) {
	t.Parallel()
	c := loadURLs(t, "smtp://ann%40example.com:p%3Aa%2F%20%25+@[2001:db8::1]:587?name=v6&conversation=/tmp/a+b%26c")[0]
	if c.User != "ann@example.com" || c.Password != "p:a/ %+" || c.Host != "2001:db8::1" || c.Port != 587 || c.Conversation != "/tmp/a+b&c" {
		t.Errorf("got user %q, password %q, host %q, port %d, conversation %q", c.User, c.Password, c.Host, c.Port, c.Conversation)
	}
}

func TestTheLastAtSignEndsThePassword(t *testing.T) {
	t.Parallel()
	c := loadURLs(t, "smtp://ann@example.com:p@ss:word@mx.example.net")[0]
	if c.User != "ann@example.com" || c.Password != "p@ss:word" || c.Host != "mx.example.net" {
		t.Errorf("got user %q, password %q, host %q", c.User, c.Password, c.Host)
	}
}

func TestTheSchemeDecidesPortAndTLS(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]struct {
		port   int
		tls    string
		verify bool
	}{
		"smtp://mx.example.net":                                             {25, "opportunistic", false},
		"smtp://u:p@mx.example.net":                                         {25, "required", true},
		"smtp://u:p@mx.example.net?tls=opportunistic":                       {25, "opportunistic", false},
		"smtp://u:p@mx.example.net?tls_verify=no":                           {25, "required", false},
		"smtp://u:p@mx.example.net?tls=none&auth_in_clear=true":             {25, "none", false},
		"smtp://mx.example.net?tls=opportunistic&tls_verify=true":           {25, "opportunistic", true},
		"SMTPS://mx.example.net":                                            {465, "implicit", true},
		"smtps://mx.example.net:4650?tls=required":                          {4650, "implicit", true},
		"smtps://u:p@mx.example.net?tls_verify=false&tls_ca=&name=a%20b":    {},
		"lmtp://mx.example.net":                                             {24, "opportunistic", false},
		"dummy:///tmp/dialogue":                                             {},
		"smtp://mx.example.net:2525/?tls=Required&envelope_limit=0&tries=1": {2525, "required", true},
	} {
		t.Run(url, func(t *testing.T) {
			t.Parallel()
			relays, err := config.Load(url, "", quiet(""))
			if strings.Contains(url, "a%20b") {
				if err == nil || len(strings.Split(err.Error(), "\n")) != 2 {
					t.Errorf("want two problems, got %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			c := relays[0]
			if c.Port != want.port || c.TLS != want.tls || c.Verified() != want.verify {
				t.Errorf("got port %d, tls %q, verify %v; want %+v", c.Port, c.TLS, c.Verified(), want)
			}
		})
	}
}

func TestADefaultNameDependsOnTheRelayAlone(t *testing.T) {
	t.Parallel()
	got := names(loadURLs(t, "smtp://mx.example.net smtp://mx.example.net:2525 smtps://other.example.net "+
		"smtp://[::1]:2525 dummy:///var/log/dialogue dummy://"))
	want := "mx.example.net mx.example.net:2525 other.example.net [::1]:2525 dummy:dialogue dummy"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestOneRelayHasNoRobinAndSeveralHave(t *testing.T) {
	t.Parallel()
	if n := loadURLs(t, "smtp://a.example")[0].MaxMessagesPerRobin; n != relay.None {
		t.Errorf("alone: %d", n)
	}
	two := loadURLs(t, "smtp://a.example smtp://b.example?max_messages_per_robin=0")
	if two[0].MaxMessagesPerRobin != 500 || two[1].MaxMessagesPerRobin != relay.None {
		t.Errorf("two: %d, %d", two[0].MaxMessagesPerRobin, two[1].MaxMessagesPerRobin)
	}
}

func TestURLsAndAFileAddUp(t *testing.T) {
	t.Parallel()
	files := onDisk(map[string]string{"relays": "relays: [{host: b.example}]"})
	relays, err := config.Load("smtp://a.example", "relays", files)
	if err != nil {
		t.Fatal(err)
	}
	if got := names(relays); got != "a.example b.example" {
		t.Error(got)
	}
	_, err = config.Load("smtp://b.example", "relays", files)
	if err == nil || err.Error() != "relays:1: relays[0].name: two relays are called b.example, the other at BULKMAIL_RELAYS, URL 1: give each a name of its own" {
		t.Error(err)
	}
}

func TestTheDomainIsTheHostsNameOrAnAddressLiteral(t *testing.T) {
	t.Parallel()
	network := func(cidrs ...string) func() ([]net.Addr, error) {
		return func() (addrs []net.Addr, err error) {
			for _, c := range cidrs {
				ip, n, err := net.ParseCIDR(c)
				if err != nil {
					return nil, err
				}
				addrs = append(addrs, &net.IPNet{IP: ip, Mask: n.Mask})
			}
			return addrs, nil
		}
	}
	for _, test := range []struct {
		hostname string
		addrs    []string
		want     string
	}{
		{"worker.example.com", nil, "worker.example.com"},
		{"worker.example.com.", nil, "worker.example.com"},
		{"worker", []string{"127.0.0.1/8", "fe80::1/64", "2001:db8::7/64", "192.0.2.7/24"}, "[192.0.2.7]"},
		{"localhost.localdomain", []string{"::1/128", "2001:db8::7/64"}, "[IPv6:2001:db8::7]"},
		{"", []string{"127.0.0.1/8", "169.254.1.1/16", "fe80::1/64"}, "[127.0.0.1]"},
		{"no name at all", nil, "[127.0.0.1]"},
	} {
		t.Run(test.hostname, func(t *testing.T) {
			t.Parallel()
			opt := quiet("")
			opt.Hostname = func() (string, error) {
				if test.hostname == "" {
					return "", errors.New("no host name")
				}
				return test.hostname, nil
			}
			opt.Addrs = network(test.addrs...)
			relays, err := config.Load("smtp://a.example smtp://b.example?domain=said.example.com", "", opt)
			if err != nil {
				t.Fatal(err)
			}
			if relays[0].Domain != test.want || relays[1].Domain != "said.example.com" {
				t.Errorf("got %q and %q", relays[0].Domain, relays[1].Domain)
			}
		})
	}
}

func TestTheFormIsDetectedByWhatIsInTheFile(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"YAML":                    "relays: [{host: a.example}]",
		"YAML with comments":      "# Smtp = x\n\n---\nrelays:\n- host: a.example\n",
		"YAML with byte order":    "\uFEFFrelays: [{host: a.example}]",
		"YAML, Windows":           "relays:\r\n- host: a.example\r\n",
		"JSON, which is YAML":     `{"relays": [{"host": "a.example"}]}`,
		"server file":             "define package Mail::Bulkmail::Server\nSmtp = a.example\n",
		"server file, Windows":    "\uFEFFdefine package Mail::Bulkmail::Server\r\nSmtp = a.example\r\n",
		"without package":         "# servers\n Smtp @= a.example",
		"other package first":     "define package Mail::Bulkmail::Object\nERRFILE = e\nSmtp = wrong.example\ndefine package Mail::Bulkmail::Server\nSmtp = a.example",
		"comment that is YAML":    "# relays:\ndefine package Mail::Bulkmail::Server\nsmtp = a.example",
		"user's line comes first": "1000: Smtp = a.example",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := names(loadText(t, text)); got != "a.example" {
				t.Errorf("got %q", got)
			}
		})
	}
}

func TestYAMLKeepsTextsAsTheyAreWritten(t *testing.T) {
	t.Parallel()
	c := loadText(t, `
relays:
- host: "mx.example.net"
  port: '2525'
  user: 0123
  password: 1e3
  time_out: 90
  sleep_length: 1.5
  max_messages_while_awake: 10
  tls_verify: on
  overlap: off
`)[0]
	if c.Port != 2525 || c.User != "0123" || c.Password != "1e3" || c.TimeOut != 90*time.Second ||
		c.SleepLength != 1500*time.Millisecond || !c.Verified() || c.Overlap != "off" {
		type plain relay.Config
		t.Errorf("got %+v", plain(c))
	}
}

func TestYAMLAnchorsAndMergesWork(t *testing.T) {
	t.Parallel()
	relays := loadText(t, `
relays:
- &first
  host: a.example
  tries: &n 3
  connections: 9
- <<: *first
  host: b.example
  connections: *n
`)
	if names(relays) != "a.example b.example" || relays[1].Tries != 3 || relays[1].Connections != 3 || relays[0].Connections != 9 {
		t.Errorf("got %v, tries %d, connections %d and %d", relays, relays[1].Tries, relays[0].Connections, relays[1].Connections)
	}
}

func TestAnAliasOfItselfEnds(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"relays: &a *a\n",
		"relays:\n- host: &h *h\n",
		"relays: &r\n- *r\n",
		"relays:\n- &m\n  <<: *m\n  host: x.example\n  colour: red\n",
	} {
		problemsOf(t, text)
	}
}

func TestDefaultsGiveWayToTheRelay(t *testing.T) {
	t.Parallel()
	relays := loadText(t, `
defaults: {tries: 2, password: shared, sleep_length: 60, tls: none, conversation: all.log, port: 2525}
relays:
- {host: a.example, tries: 7}
- {host: b.example, user: news, tls: required, conversation: off}
- {host: c.example, max_messages_while_awake: 5}
- {kind: dummy, name: d}
- {kind: smtps, host: e.example}
`)
	a, b, c, d, e := relays[0], relays[1], relays[2], relays[3], relays[4]
	if a.Tries != 7 || b.Tries != 2 || a.Password != "" || b.Password != "shared" || c.SleepLength != time.Minute {
		t.Errorf("got %v %v %v", a, b, c)
	}
	if a.TLS != "none" || b.TLS != "required" || d.TLS != "" || e.TLS != "implicit" {
		t.Errorf("tls: got %q %q %q %q", a.TLS, b.TLS, d.TLS, e.TLS)
	}
	if a.Conversation != "all.log" || b.Conversation != "" || d.Port != 0 || e.Port != 2525 {
		t.Errorf("got %q %q %d %d", a.Conversation, b.Conversation, d.Port, e.Port)
	}
}

func TestWhatIsWrongWithADefaultIsSaidOnce(t *testing.T) {
	t.Parallel()
	got := problemsOf(t, "defaults: {tries: 0, tls_key: k.pem}\nrelays: [{host: a.example}, {host: b.example}]")
	if len(got) != 2 {
		t.Errorf("got %q", got)
	}
}

func TestPathsAreRelativeToTheFileThatNamesThem(t *testing.T) {
	t.Parallel()
	opt := onDisk(map[string]string{
		"etc/relays.yaml":    "relays: [{host: a.example, user: u, password_file: pw, conversation: log/a}, {host: b.example, conversation: stderr}]",
		"etc/pw":             "secret\n",
		"etc/mb/master.conf": "define package Mail::Bulkmail::Server\nserver_file = ../lists/servers\nCONVERSATION = talk",
		"etc/lists/servers":  "define package Mail::Bulkmail::Server\nSmtp @= c.example",
	})
	relays, err := config.Load("", "etc/relays.yaml", opt)
	if err != nil {
		t.Fatal(err)
	}
	if relays[0].PasswordFile != "etc/pw" || relays[0].Conversation != "etc/log/a" || relays[1].Conversation != "stderr" {
		t.Errorf("got %q %q %q", relays[0].PasswordFile, relays[0].Conversation, relays[1].Conversation)
	}
	relays, err = config.Load("", "etc/mb/master.conf", opt)
	if err != nil {
		t.Fatal(err)
	}
	if relays[0].Conversation != "etc/mb/talk" || relays[0].Where != "etc/lists/servers:2" {
		t.Errorf("got %q at %s", relays[0].Conversation, relays[0].Where)
	}
}

func TestARelaysOwnPasswordReplacesADefaultOfTheOtherKind(t *testing.T) {
	t.Parallel()
	files := map[string]string{
		"file": "defaults: {user: u, password_file: pw}\nrelays: [{host: a.example, password: own}, {host: b.example}]",
		"text": "defaults: {user: u, password: text}\nrelays: [{host: a.example, password_file: pw}, {host: b.example}]",
		"pw":   "secret",
	}
	relays, err := config.Load("", "file", onDisk(files))
	if err != nil {
		t.Fatal(err)
	}
	if a, b := relays[0], relays[1]; a.Password != "own" || a.PasswordFile != "" || b.Password != "" || b.PasswordFile != "pw" {
		t.Errorf("got %q %q, %q %q", a.Password, a.PasswordFile, b.Password, b.PasswordFile)
	}
	relays, err = config.Load("", "text", onDisk(files))
	if err != nil {
		t.Fatal(err)
	}
	if a, b := relays[0], relays[1]; a.Password != "" || a.PasswordFile != "pw" || b.Password != "text" || b.PasswordFile != "" {
		t.Errorf("got %q %q, %q %q", a.Password, a.PasswordFile, b.Password, b.PasswordFile)
	}
}

func TestInternationalHostsBecomeALabels(t *testing.T) {
	t.Parallel()
	c := loadURLs(t, "smtp://bücher.example?domain=grüße.example")[0]
	if c.Host != "xn--bcher-kva.example" || c.Domain != "xn--gre-6ka8l.example" {
		t.Errorf("got %s, %s", c.Host, c.Domain)
	}
}
