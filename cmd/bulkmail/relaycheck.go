package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"strings"
	"sync"
	"time"

	"bulkmail/relay"
	"bulkmail/relay/smtp"
)

// A checked relay is a line of `relays check`.
type checked struct {
	Relay  string  `json:"relay"`
	URL    string  `json:"url"`
	OK     bool    `json:"ok"`
	Error  string  `json:"error,omitempty"`
	TookMS float64 `json:"took_ms"`
	offer
}

func checkRelays(ctx context.Context, s *streams, asJSON bool) error {
	c, _, configs, err := loadAll()
	if err != nil {
		return err
	}
	relays, err := relay.FromConfig(configs, relay.Outlets{Log: newLogger(c, s.err)})
	if err != nil {
		return err
	}
	t := newTable("relay", "url", "result", "took", "greeting", "tls", "certificate ends", "auth", "limits", "offers")
	enc := encoder(s.out, isTerminal(s.out))
	bad := 0
	for _, one := range checkAll(ctx, relays) {
		if !one.OK {
			bad++
		}
		if asJSON {
			if err := enc.Encode(one); err != nil {
				return err
			}
			continue
		}
		took := time.Duration(one.TookMS * float64(time.Millisecond)).Round(time.Millisecond)
		t.row(one.Relay, one.URL, cmp.Or(one.Error, "ok"), took, dash(one.Greeting), dash(one.TLS), dash(one.CertificateEnds),
			dash(one.auth()), dash(one.limits()), dash(strings.Join(one.Offers, ",")))
	}
	if !asJSON {
		if err := t.print(s.out); err != nil {
			return err
		}
	}
	if bad > 0 {
		return fmt.Errorf("%s of %d cannot be used", count(bad, "relay", "relays"), len(relays))
	}
	return nil
}

// checkWithin bounds the check of a relay: somebody waits for it.
const checkWithin = time.Minute

// checkAll checks all relays at once, as those that do not answer take long.
func checkAll(ctx context.Context, relays []relay.Relay) []checked {
	all := make([]checked, len(relays))
	var checks sync.WaitGroup
	for i, r := range relays {
		checks.Go(func() { all[i] = check(ctx, r) })
	}
	checks.Wait()
	return all
}

// check connects to a relay and leaves again.
func check(ctx context.Context, r relay.Relay) checked {
	one := checked{Relay: r.Config.Name, URL: r.Config.URL()}
	began := time.Now()
	ctx, cancel := context.WithTimeoutCause(ctx, checkWithin, fmt.Errorf("it took more than %v", checkWithin))
	defer cancel()
	session, err := r.Dialer.Dial(ctx)
	one.TookMS = float64(time.Since(began).Microseconds()) / 1000
	if err == nil {
		one.of(session)
		err = session.Close()
	}
	if err != nil {
		one.Error = err.Error()
	}
	one.OK = err == nil
	return one
}

// dash stands for what there is none of.
func dash(s string) string { return cmp.Or(s, "-") }

// An offer is what a relay has for us, as far as its session tells.
type offer struct {
	Greeting        string           `json:"greeting,omitempty"`
	TLS             string           `json:"tls,omitempty"`              // its version
	CertificateEnds string           `json:"certificate_ends,omitempty"` // a date
	Auth            []string         `json:"auth,omitempty"`
	LoggedInBy      string           `json:"logged_in_by,omitempty"`
	Limits          map[string]int64 `json:"limits,omitempty"` // by their names in RFC 9422, and SIZE
	Offers          []string         `json:"offers,omitempty"` // the other keywords
}

func (o *offer) of(session relay.Session) {
	known, ok := session.(interface {
		Greeting() string
		LoggedIn() string
		Capabilities() smtp.Capabilities
		TLS() *tls.ConnectionState
	})
	if !ok {
		return
	}
	o.Greeting = known.Greeting()
	if state := known.TLS(); state != nil {
		o.TLS = strings.ReplaceAll(tls.VersionName(state.Version), " ", "")
		if len(state.PeerCertificates) > 0 {
			o.CertificateEnds = state.PeerCertificates[0].NotAfter.UTC().Format(time.DateOnly)
		}
	}
	offers := known.Capabilities()
	o.Auth, o.LoggedInBy = offers.Auth, known.LoggedIn()
	for name, n := range map[string]int64{
		"SIZE": offers.Size, "RCPTMAX": int64(offers.MaxRecipients), "MAILMAX": int64(offers.MaxMessages), "RCPTDOMAINMAX": int64(offers.MaxDomains),
	} {
		if n > 0 {
			if o.Limits == nil {
				o.Limits = make(map[string]int64)
			}
			o.Limits[name] = n
		}
	}
	for _, line := range offers.Lines {
		keyword, _, _ := strings.Cut(line, " ")
		switch word := strings.ToUpper(keyword); word {
		case "AUTH", "SIZE", "LIMITS": // have their columns
		default:
			o.Offers = append(o.Offers, word)
		}
	}
}

func (o *offer) auth() string {
	text := strings.Join(o.Auth, ",")
	if o.LoggedInBy != "" {
		text = dash(text) + "; logged in by " + o.LoggedInBy
	}
	return text
}

func (o *offer) limits() string {
	var limits []string
	for _, name := range []string{"SIZE", "RCPTMAX", "MAILMAX", "RCPTDOMAINMAX"} {
		if n, ok := o.Limits[name]; ok {
			limits = append(limits, fmt.Sprintf("%s=%d", name, n))
		}
	}
	return strings.Join(limits, ",")
}
