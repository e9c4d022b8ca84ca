package relay

import (
	"reflect"
	"testing"
	"time"

	"bulkmail/relay/smtp"
)

// TestAConfigThatSaysNothingHasTheDocumentedDefaults goes over every field: a
// new one must be given its default here.
func TestAConfigThatSaysNothingHasTheDocumentedDefaults(t *testing.T) {
	t.Parallel()
	type plain Config // a Config prints as its URL
	alike := Config{
		Tries: 5, MaxConnectionAttempts: 5, WorthlessFor: time.Minute,
		EnvelopeLimit: 100, EnvelopeDomains: 1,
		MaxMessages: 0, MaxMessagesWindow: 0, MaxRate: Rate{}, MaxMessagesPerConnection: 0,
		MaxMessagesPerRobin:   None,
		MaxMessagesWhileAwake: 0, SleepLength: 0,
		TalkAttempts: 1, TimeOut: 0, Connections: 4,
		TLSVerify: smtp.VerifyAsMode, Overlap: "auto", DKIM: On, ReturnPath: On, Conversation: "",
	}
	for name, c := range map[string]struct {
		given  Config
		relays int
		want   func(*Config)
	}{
		"smtp": {Config{Host: "mx.test"}, 1, func(c *Config) {
			c.Name, c.Kind, c.Host, c.Port, c.TLS = "mx.test", KindSMTP, "mx.test", 25, TLSOpportunistic
		}},
		"smtp with a password": {Config{Host: "mx.test", User: "u", Password: "p"}, 1, func(c *Config) {
			c.Name, c.Kind, c.Host, c.Port, c.User, c.Password, c.TLS = "mx.test", KindSMTP, "mx.test", 25, "u", "p", TLSRequired
		}},
		"smtps": {Config{Kind: KindSMTPS, Host: "mx.test"}, 1, func(c *Config) {
			c.Name, c.Kind, c.Host, c.Port, c.TLS = "mx.test", KindSMTPS, "mx.test", 465, TLSImplicit
		}},
		"lmtp on another port": {Config{Kind: KindLMTP, Host: "mx.test", Port: 2424}, 1, func(c *Config) {
			c.Name, c.Kind, c.Host, c.Port, c.TLS = "mx.test:2424", KindLMTP, "mx.test", 2424, TLSOpportunistic
		}},
		"dummy":          {Config{Kind: KindDummy}, 1, func(c *Config) { c.Name, c.Kind = "dummy", KindDummy }},
		"one of several": {Config{Kind: KindDummy}, 2, func(c *Config) { c.Name, c.Kind, c.MaxMessagesPerRobin = "dummy", KindDummy, 500 }},
		"no limits": {Config{Kind: KindDummy, EnvelopeLimit: None, EnvelopeDomains: None, MaxMessagesPerRobin: None, WorthlessFor: None}, 2, func(c *Config) {
			c.Name, c.Kind, c.EnvelopeLimit, c.EnvelopeDomains, c.WorthlessFor = "dummy", KindDummy, None, None, None
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			want := alike
			c.want(&want)
			if got := c.given.WithDefaults(c.relays); !reflect.DeepEqual(got, want) {
				t.Errorf("got  %+v\nwant %+v", plain(got), plain(want))
			}
		})
	}
	none := Config{EnvelopeLimit: None, MaxMessagesPerRobin: None}
	if got := none.Limits(); got != (Limits{}) {
		t.Errorf("no limits are %+v", got)
	}
}

func TestARelayOfARelayConfigThatSaysNothingSendsToOneDomainAtATime(t *testing.T) {
	t.Parallel()
	r := &recorder{}
	p := NewPool([]Relay{{Dialer: r, Config: Config{Host: "mx.test"}}}, Options{})
	l := &domains{list: newList(p, "x", 40)}
	p.Add(l)
	<-l.finished
	closePool(t, p)
	for _, granted := range l.granted {
		if granted != 1 {
			t.Errorf("an envelope of %d domains was granted", granted)
		}
	}
	if st := p.Status()[0]; st.Relay != "mx.test" || st.AtOnce != 4 {
		t.Errorf("%+v", st)
	}
}

// domains is a list that keeps of how many domains each envelope might have
// been.
type domains struct {
	*list
	granted []int
}

func (d *domains) Cut(g Grant) *Envelope {
	d.granted = append(d.granted, g.Domains)
	return d.list.Cut(g)
}
