package relay

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"bulkmail/relay/smtp"
)

// Outlets is where relays made by [FromConfig] log to.
type Outlets struct {
	Log    *slog.Logger // nil: discarded
	Stderr io.Writer    // for conversation=stderr; nil: os.Stderr

	// Conversation, if not nil, is given each line of the conversations of
	// all relays, whatever they are configured to do with them. It is called
	// concurrently.
	Conversation func(relay, line string)

	// Took, if not nil, makes for each relay what is told how long the phases
	// of its sessions take: see [smtp.Dialer].
	Took func(relay string) func(smtp.Phase, time.Duration)
}

// FromConfig makes the relays that cfgs describe. All problems are reported
// together.
func FromConfig(cfgs []Config, out Outlets) ([]Relay, error) {
	logs := map[string]*conversation{}
	relays := make([]Relay, len(cfgs))
	var problems []error
	domain := sync.OnceValue(func() string { return LocalDomain(FQDN, net.InterfaceAddrs) })
	for i, c := range cfgs {
		c = c.WithDefaults(len(cfgs))
		if c.Domain == "" {
			c.Domain = domain()
		}
		d, err := dialer(c, out, logs)
		if err != nil {
			problems = append(problems, fmt.Errorf("%s: relay %s: %w", cmp.Or(c.Where, "relays"), c.Name, err))
		}
		if out.Log != nil && c.HasPassword() && c.TLS != TLSNone && !c.Verified() {
			out.Log.Warn("the password goes to whoever answers: no certificate is verified", "relay", c.Name, "tls", c.TLS, "change", "set tls=required, or tls_verify=true")
		}
		relays[i] = Relay{Config: c, Dialer: d}
	}
	if err := errors.Join(problems...); err != nil {
		return nil, &Error{Err: err}
	}
	return relays, nil
}

// The values of tls and overlap, as package smtp calls them.
var (
	encryptions = map[string]smtp.TLSMode{TLSNone: smtp.NoTLS, TLSOpportunistic: smtp.Opportunistic, TLSRequired: smtp.Required, TLSImplicit: smtp.Implicit}
	overlaps    = map[string]smtp.Overlap{"auto": smtp.OverlapAuto, "on": smtp.OverlapOn, "off": smtp.OverlapOff}
)

func dialer(c Config, out Outlets, logs map[string]*conversation) (Dialer, error) {
	if c.Kind == KindDummy {
		return &Dummy{Path: c.Path, Domain: c.Domain}, writable(c.Path)
	}
	d := &smtp.Dialer{
		Addr:         c.Addr(),
		Domain:       c.Domain,
		LMTP:         c.Kind == KindLMTP,
		TLSVerify:    c.TLSVerify,
		TLSCA:        c.TLSCA,
		TLSCert:      c.TLSCert,
		TLSKey:       c.TLSKey,
		Auth:         c.Auth,
		User:         c.User,
		Password:     c.Password,
		PasswordFile: c.PasswordFile,
		AuthInClear:  c.AuthInClear,
		Tries:        c.Tries,
		TalkAttempts: c.TalkAttempts,
		Timeout:      c.TimeOut,
		Log:          out.Log,
	}
	if d.Log != nil {
		d.Log = d.Log.With("relay", c.Name)
	}
	if out.Took != nil {
		d.Took = out.Took(c.Name)
	}
	var known bool
	if d.TLS, known = encryptions[c.TLS]; !known {
		return nil, fmt.Errorf("tls=%s: want %s, %s or %s", c.TLS, TLSNone, TLSOpportunistic, TLSRequired)
	}
	if c.Kind == KindSMTPS {
		d.TLS = smtp.Implicit
	}
	if d.Overlap, known = overlaps[c.Overlap]; !known {
		return nil, fmt.Errorf("overlap=%s: want off, on or auto", c.Overlap)
	}
	if out.Conversation != nil {
		d.Conversation = func(line string) { out.Conversation(c.Name, line) }
		return overSMTP{d}, nil
	}
	if c.Conversation == "" {
		return overSMTP{d}, nil
	}
	log := logs[c.Conversation]
	switch {
	case log != nil:
	case c.Conversation == "stderr":
		log = &conversation{now: time.Now, w: out.Stderr}
		if out.Stderr == nil {
			log.w = os.Stderr
		}
	default:
		if err := writable(c.Conversation); err != nil {
			return nil, err
		}
		log = &conversation{now: time.Now, path: c.Conversation}
	}
	logs[c.Conversation] = log
	d.Conversation = func(line string) { log.line(c.Name, line) }
	return &logged{d, log}, nil
}

// writable finds out early that a file cannot be written to.
func writable(path string) error {
	if path == "" {
		return nil
	}
	f, err := openAppend(path)
	if err != nil {
		return err
	}
	return f.Close()
}

// overSMTP makes a Dialer of that of package smtp.
type overSMTP struct{ *smtp.Dialer }

func (d overSMTP) Dial(ctx context.Context) (Session, error) {
	s, err := d.Dialer.Dial(ctx)
	if err != nil {
		return nil, err
	}
	return s, nil
}
