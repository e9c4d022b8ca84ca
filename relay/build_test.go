package relay

import (
	"bytes"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"bulkmail/relay/sink"
	"bulkmail/relay/smtp"
)

// ledger is what sinks took, by recipient.
type ledger struct {
	mu    sync.Mutex
	taken map[string]int
}

func (l *ledger) record(tr sink.Transaction) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, who := range tr.Recipients {
		l.taken[who]++
	}
}

// server starts a sink and returns it with its configuration.
func server(t *testing.T, name string, opts sink.Options, with ...func(*Config)) (*sink.Server, Config) {
	t.Helper()
	s, err := sink.Start(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close(t.Context()) })
	host, port, _ := net.SplitHostPort(s.Addr())
	c := Config{
		Name: name, Kind: KindSMTP, Host: host, Domain: "here.example.com", TLS: TLSOpportunistic,
		Tries: 1, MaxConnectionAttempts: 5, WorthlessFor: time.Minute, EnvelopeLimit: 100, MaxMessagesPerRobin: None, TalkAttempts: 1, Connections: 2, Overlap: "auto",
	}
	c.Port, _ = strconv.Atoi(port)
	for _, f := range with {
		f(&c)
	}
	return s, c
}

func build(t *testing.T, out Outlets, cfgs ...Config) []Relay {
	t.Helper()
	relays, err := FromConfig(cfgs, out)
	if err != nil {
		t.Fatal(err)
	}
	return relays
}

func TestAListGoesOutOverSMTPAndEveryoneIsTakenOnce(t *testing.T) {
	t.Parallel()
	book := ledger{taken: map[string]int{}}
	rules, err := sink.ParseRules("MAIL first 3:*=451 4.3.2 shutting down", "RCPT:list-7@*=550 5.1.1 no such user")
	if err != nil {
		t.Fatal(err)
	}
	_, capped := server(t, "capped", sink.Options{Recorder: book.record}, func(c *Config) { c.MaxMessages = 250 })
	_, rude := server(t, "rude", sink.Options{Recorder: book.record, Rules: rules})
	_, kind := server(t, "kind", sink.Options{Recorder: book.record, MaxRcpt: 30}, perRobin(500))
	gone := kind
	gone.Name, gone.Port = "gone", 1

	p := NewPool(build(t, Outlets{}, gone, capped, rude, kind), Options{Backoff: 10 * time.Millisecond})
	l := newList(p, "list", 5000)
	l.message = message(t)
	p.Add(l)
	<-l.finished
	closePool(t, p)
	for who, n := range book.taken {
		if n != 1 {
			t.Errorf("%s was taken %d times", who, n)
		}
	}
	if l.status[smtp.Accepted]+l.status[smtp.Rejected] != 5000 || l.status[smtp.Rejected] > 1 || len(book.taken) != l.status[smtp.Accepted] {
		t.Errorf("%v, the sinks took %d", l.status, len(book.taken))
	}
	if l.by["capped"] > 250 {
		t.Errorf("%v, capped at 250", l.by)
	}
}

func TestCloseLetsAnSMTPTransactionFinish(t *testing.T) {
	t.Parallel()
	_, c := server(t, "a", sink.Options{Delay: 100 * time.Millisecond})
	sending := make(chan struct{}, 100)
	p := NewPool(build(t, Outlets{Conversation: func(_, line string) {
		if strings.HasPrefix(line, "S: 354") {
			sending <- struct{}{}
		}
	}}, c), Options{})
	l := newList(p, "x", 1000)
	l.message = message(t)
	p.Add(l)
	<-sending
	closePool(t, p)
	if l.status[smtp.Accepted] < 100 || len(l.settled)+len(l.queue) != 1000 || len(l.status) > 1 {
		t.Errorf("%v, %d back in the queue", l.status, len(l.queue))
	}
}

func TestTheConversationGoesToAFileThatRelaysMayShare(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "conversation")
	shared := func(c *Config) { c.Conversation = path }
	_, a := server(t, "a", sink.Options{}, shared, func(c *Config) { c.MaxMessages = 100 })
	_, b := server(t, "b", sink.Options{}, shared, func(c *Config) { c.MaxMessages = 100 })
	p := NewPool(build(t, Outlets{}, a, b), Options{})
	l := newList(p, "x", 200)
	l.message = message(t)
	p.Add(l)
	<-l.finished
	closePool(t, p)
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (a|b) [CS]: `)
	seen := map[string]bool{}
	for text := range strings.Lines(string(got)) {
		m := line.FindStringSubmatch(text)
		if m == nil {
			t.Fatalf("a line %q", text)
		}
		seen[m[1]] = true
	}
	if !seen["a"] || !seen["b"] || !strings.Contains(string(got), "C: RCPT TO:<x-0@example.net>") {
		t.Errorf("relays %v", seen)
	}
}

func TestTheConversationGoesToStderrOrToAFunction(t *testing.T) {
	t.Parallel()
	_, c := server(t, "a", sink.Options{}, func(c *Config) { c.Conversation = "stderr" })
	var mu sync.Mutex
	var stderr, called bytes.Buffer
	locked := writerFunc(func(b []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return stderr.Write(b)
	})
	for _, out := range []Outlets{
		{Stderr: locked},
		{Conversation: func(relay, line string) {
			mu.Lock()
			defer mu.Unlock()
			called.WriteString(relay + " " + line + "\n")
		}},
	} {
		p := NewPool(build(t, out, c), Options{})
		l := newList(p, "x", 1)
		l.message = message(t)
		p.Add(l)
		<-l.finished
		closePool(t, p)
	}
	if !strings.Contains(stderr.String(), "a C: RCPT TO:<x-0@example.net>") || !strings.HasPrefix(called.String(), "a S: 220 ") {
		t.Errorf("stderr has\n%s\nthe function got\n%s", &stderr, &called)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

func TestAllThatIsWrongWithRelaysIsReportedTogether(t *testing.T) {
	t.Parallel()
	nowhere := filepath.Join(t.TempDir(), "no", "such", "folder")
	_, err := FromConfig([]Config{
		{Name: "a", Kind: KindDummy, Path: nowhere, Where: "relays.yaml:3"},
		{Name: "b", Kind: KindSMTP, TLS: TLSNone, Conversation: nowhere, Where: "relays.yaml:9"},
		{Name: "c", Kind: KindSMTP, TLS: "sometimes"},
		{Name: "d", Kind: KindSMTP, TLS: TLSNone, Overlap: "perhaps"},
	}, Outlets{})
	if err == nil {
		t.Fatal("no error")
	}
	for _, part := range []string{"relays.yaml:3: relay a: open", "relays.yaml:9: relay b: open", "relay c: tls=sometimes", "relay d: overlap=perhaps"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q is missing in\n%v", part, err)
		}
	}
	if _, err := os.Stat(nowhere); !os.IsNotExist(err) {
		t.Error(fs.ErrExist)
	}
}

func TestSettingsReachTheSMTPDialer(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*Config)
		ok     func(*smtp.Dialer) bool
	}{
		"smtps":         {func(c *Config) { c.Kind, c.TLS = KindSMTPS, TLSImplicit }, func(d *smtp.Dialer) bool { return d.TLS == smtp.Implicit && !d.LMTP }},
		"lmtp":          {func(c *Config) { c.Kind = KindLMTP }, func(d *smtp.Dialer) bool { return d.LMTP }},
		"none":          {func(c *Config) { c.TLS = TLSNone }, func(d *smtp.Dialer) bool { return d.TLS == smtp.NoTLS }},
		"opportunistic": {func(c *Config) { c.TLS = TLSOpportunistic }, func(d *smtp.Dialer) bool { return d.TLS == smtp.Opportunistic }},
		"required":      {func(c *Config) { c.TLS = TLSRequired }, func(d *smtp.Dialer) bool { return d.TLS == smtp.Required && d.TLSVerify == smtp.VerifyAsMode }},
		"overlap off":   {func(c *Config) { c.Overlap = "off" }, func(d *smtp.Dialer) bool { return d.Overlap == smtp.OverlapOff }},
		"overlap on":    {func(c *Config) { c.Overlap = "on" }, func(d *smtp.Dialer) bool { return d.Overlap == smtp.OverlapOn }},
		"the rest": {
			func(c *Config) {
				c.TimeOut, c.Tries, c.TalkAttempts = time.Second, 3, 2
				c.Auth, c.User, c.Password, c.PasswordFile, c.AuthInClear = "LOGIN", "u", "p", "f", true
				c.TLSCA, c.TLSCert, c.TLSKey = "ca", "cert", "key"
			},
			func(d *smtp.Dialer) bool {
				return d.Addr == "[::1]:2525" && d.Domain == "here" && d.Timeout == time.Second && d.Tries == 3 && d.TalkAttempts == 2 &&
					d.Auth == "LOGIN" && d.User == "u" && d.Password == "p" && d.PasswordFile == "f" && d.AuthInClear &&
					d.TLSCA == "ca" && d.TLSCert == "cert" && d.TLSKey == "key"
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := Config{Name: "a", Kind: KindSMTP, Host: "::1", Port: 2525, Domain: "here", TLS: TLSOpportunistic}
			c.change(&cfg)
			if d := build(t, Outlets{}, cfg)[0].Dialer.(overSMTP).Dialer; !c.ok(d) {
				t.Errorf("%+v", d)
			}
		})
	}
}
