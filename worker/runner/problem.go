package runner

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nkeys"

	"bulkmail/envelope/conffile"
	"bulkmail/subjects"
	"bulkmail/worker"
)

// A Problem is one thing that is wrong with [Options].
type Problem struct {
	fields []string // of Options, those it is about; none: the reason says where it is
	reason func(name func(field string) string) string
}

// Error names fields as Options does.
func (p Problem) Error() string { return p.In(func(field string) string { return field }) }

// In is the problem in the words of whoever calls the fields of Options
// otherwise, as the command line does: name says how.
func (p Problem) In(name func(field string) string) string {
	if len(p.fields) == 0 {
		return p.reason(name)
	}
	named := make([]string, len(p.fields))
	for i, field := range p.fields {
		named[i] = name(field)
	}
	return strings.Join(named, ", ") + ": " + p.reason(name)
}

// Problems are all that is wrong with [Options].
type Problems []Problem

// Error has a line for each.
func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i := range p {
		lines[i] = p[i].Error()
	}
	return strings.Join(lines, "\n")
}

// add adds a problem with a field.
func (p *Problems) add(field, format string, args ...any) {
	p.addAll([]string{field}, format, args...)
}

// addAll adds a problem with several fields, or with none.
func (p *Problems) addAll(fields []string, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	*p = append(*p, Problem{fields, func(func(string) string) string { return text }})
}

// addRemedy adds a problem with a field whose remedy, a format, names another one.
func (p *Problems) addRemedy(field, why, remedy, other string) {
	*p = append(*p, Problem{[]string{field}, func(name func(string) string) string { return why + ": " + fmt.Sprintf(remedy, name(other)) }})
}

// Validate reports everything that is wrong with o but its relays, all at once:
// the error is [Problems]. [New] reports what is wrong with relays too.
func (o Options) Validate() error {
	if p := o.WithDefaults().problems(); len(p) > 0 {
		return p
	}
	return nil
}

// problems are those of options that have their defaults, but for relays.
func (o Options) problems() Problems {
	var p Problems
	if _, err := subjects.New(o.Prefix); err != nil {
		p.add("Prefix", "%v", err)
	}
	if o.Replicas < 1 || o.Replicas > 5 {
		p.add("Replicas", "is %d; use 1 to 5", o.Replicas)
	}
	if _, _, err := net.SplitHostPort(o.Listen); err != nil {
		p.add("Listen", "%q is no address; use host:port, for example 127.0.0.1:4222", o.Listen)
	}
	if o.Sync != SyncAlways && o.Sync != SyncInterval {
		p.add("Sync", "%q is unknown; use %s or %s", o.Sync, SyncAlways, SyncInterval)
	}
	if o.InDoubt != worker.Resend && o.InDoubt != worker.Skip {
		p.add("InDoubt", "%q is unknown; use %s or %s", string(o.InDoubt), worker.Resend, worker.Skip)
	}
	for _, positive := range []struct {
		field string
		have  int64
	}{
		{"Batches", int64(o.Batches)}, {"AckWait", int64(o.AckWait)}, {"OutcomesMaxAge", int64(o.OutcomesMaxAge)},
		{"RetryFor", int64(o.RetryFor)}, {"DrainTimeout", int64(o.DrainTimeout)}, {"MessageMemory", int64(o.MessageMemory)},
	} {
		if positive.have <= 0 {
			p.add(positive.field, "must be more than 0")
		}
	}
	if slices.Min(o.RetryDelays) <= 0 {
		p.add("RetryDelays", "give one or more durations above 0, for example 1m,5m,1h")
	}
	if need := o.outcomesNeeded(); len(p) == 0 && o.OutcomesMaxAge < need {
		p.addRemedy("OutcomesMaxAge", fmt.Sprintf("is %v, but a batch may be retried for %v, and would be sent again to those "+
			"whose outcome is gone", o.OutcomesMaxAge, need), "use a longer time, or a shorter %s", "RetryFor")
	}
	o.checkHTTP(&p)
	o.checkBroker(&p)
	o.readLetters(&p)
	return p
}

// outcomesNeeded is for how long the outcomes of a batch that is retried until the
// end are needed: its last attempt may begin a delay, with its jitter, after the
// time for retries is over, and take two ack waits to be somebody's.
func (o Options) outcomesNeeded() time.Duration {
	return o.RetryFor + slices.Max(o.RetryDelays)*11/10 + 2*o.AckWait
}

func (o Options) checkHTTP(p *Problems) {
	if o.HTTPTokenFile != "" {
		if _, err := readToken(o.HTTPTokenFile); err != nil {
			p.add("HTTPTokenFile", "%v", err)
		}
	}
	if o.HTTP == "" || o.HTTP == HTTPOff {
		return
	}
	host, port, err := net.SplitHostPort(o.HTTP)
	if _, portErr := strconv.ParseUint(port, 10, 16); err != nil || portErr != nil {
		p.add("HTTP", "%q is no address; use host:port, for example 127.0.0.1:8080, or nothing for off", o.HTTP)
		return
	}
	if !loopback(host) && o.HTTPTokenFile == "" {
		p.addRemedy("HTTP", o.HTTP+" can be reached from elsewhere", "set %s to a file with a token for /metrics, or use 127.0.0.1:"+port, "HTTPTokenFile")
	}
}

// checkBroker checks what a connection to the broker takes.
func (o Options) checkBroker(p *Problems) {
	if o.Conn != nil && o.NATSURL != "" {
		p.addAll([]string{"Conn", "NATSURL"}, "set one of them")
	}
	if o.NATSURL != "" {
		if err := checkURLs(o.NATSURL); err != nil {
			p.add("NATSURL", "%v", err)
		}
	}
	if (o.NATSTLSCert == "") != (o.NATSTLSKey == "") {
		p.addAll([]string{"NATSTLSCert", "NATSTLSKey"}, "set both or neither")
	}
	if o.NATSCreds != "" && o.NATSNkey != "" {
		p.addAll([]string{"NATSCreds", "NATSNkey"}, "set one of them")
	}
	if strings.ContainsAny(o.NATSInbox, "*> \t") || slices.Contains(strings.Split(o.NATSInbox, "."), "") && o.NATSInbox != "" {
		p.add("NATSInbox", "%q is no prefix of a subject; use for example _INBOX_worker", o.NATSInbox)
	}
	o.checkBrokerFiles(p)
}

// checkBrokerFiles sees that the files which a connection to the broker takes hold
// what they should.
func (o Options) checkBrokerFiles(p *Problems) {
	for _, named := range []struct {
		field, file string
		wrong       func(content []byte) string // empty: nothing
	}{
		{"NATSCreds", o.NATSCreds, func(content []byte) string {
			if _, err := nkeys.ParseDecoratedUserNKey(content); err != nil {
				return "holds no user's key; nsc generate creds makes such a file"
			}
			return ""
		}},
		{"NATSNkey", o.NATSNkey, func(content []byte) string {
			if _, err := nkeys.ParseDecoratedNKey(content); err != nil {
				return "holds no seed of an nkey; nk -gen user makes one"
			}
			return ""
		}},
		{"NATSTLSCA", o.NATSTLSCA, func(content []byte) string {
			if !x509.NewCertPool().AppendCertsFromPEM(content) {
				return "holds no certificate in PEM form"
			}
			return ""
		}},
		{"NATSTLSCert", o.NATSTLSCert, func([]byte) string { return "" }},
		{"NATSTLSKey", o.NATSTLSKey, func([]byte) string {
			if _, err := tls.LoadX509KeyPair(o.NATSTLSCert, o.NATSTLSKey); err != nil && o.NATSTLSCert != "" && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Sprintf("does not go with %s: %v", o.NATSTLSCert, err)
			}
			return ""
		}},
	} {
		if named.file == "" {
			continue
		}
		content, err := conffile.Read(named.file)
		if err != nil {
			p.add(named.field, "%v", err)
		} else if why := named.wrong(content); why != "" {
			p.add(named.field, "%s %s", named.file, why)
		}
	}
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// checkURLs says of the first of several addresses that is none which it is,
// and nothing of what it holds.
func checkURLs(urls string) error {
	for i, one := range strings.Split(urls, ",") {
		if one = strings.TrimSpace(one); !strings.Contains(one, "://") {
			one = "nats://" + one
		}
		u, err := url.Parse(one)
		if err != nil || u.Hostname() == "" || !slices.Contains([]string{"nats", "tls", "ws", "wss"}, u.Scheme) {
			return fmt.Errorf("address %d is not like nats://host:4222 (tls, ws and wss too; in a password, / @ : %% are %%2F %%40 %%3A %%25)", i+1)
		}
	}
	return nil
}
