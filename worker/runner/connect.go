package runner

import (
	"crypto/tls"
	"errors"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// NATSOptions are the options of every connection to the broker that o
// describes, under a name that the broker shows. A program that publishes beside
// its worker connects with them too.
func (o Options) NATSOptions(name string) []nats.Option {
	log := logOr(o.Log)
	options := []nats.Option{
		nats.Name("bulkmail " + name),
		nats.MaxReconnects(-1),
		// A broker that is cut off without a word is left within half a minute,
		// not four.
		nats.PingInterval(10 * time.Second),
		// Whoever was logged in once goes on trying: a password may be changed
		// on either side first.
		nats.IgnoreAuthErrorAbort(),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			log.Warn("broker reports", "error", err)
		}),
		nats.DisconnectErrHandler(func(nc *nats.Conn, err error) {
			if !nc.IsClosed() && err != nil {
				log.Warn("broker lost, reconnecting", "error", err)
			}
		}),
		nats.ReconnectHandler(func(nc *nats.Conn) {
			log.Info("broker back", "url", nc.ConnectedUrlRedacted())
		}),
	}
	if o.NATSCreds != "" {
		options = append(options, nats.UserCredentials(o.NATSCreds))
	}
	if o.NATSNkey != "" {
		options = append(options, nkey(o.NATSNkey))
	}
	if o.NATSTLSCA != "" {
		options = append(options, nats.RootCAs(o.NATSTLSCA))
	}
	if o.NATSTLSCert != "" {
		options = append(options, nats.ClientCert(o.NATSTLSCert, o.NATSTLSKey))
	}
	if o.NATSInbox != "" {
		options = append(options, nats.CustomInboxPrefix(o.NATSInbox))
	}
	return options
}

// nkey logs in with the seed in a file.
func nkey(file string) nats.Option {
	option, err := nats.NkeyOptionFromSeed(file)
	if err != nil {
		return func(*nats.Options) error { return err }
	}
	return option
}

// Dial connects to the broker at urls, now or later, under a name that the broker
// shows. What waiting does not mend is an error.
func (o Options) Dial(urls, name string) (*nats.Conn, error) {
	nc, err := nats.Connect(urls, o.NATSOptions(name)...)
	if err == nil || Refused(err) || Untrusted(err) {
		return nc, err
	}
	logOr(o.Log).Warn("broker not reached, trying on", "url", RedactURLs(urls), "error", err)
	return nats.Connect(urls, append(o.NATSOptions(name), nats.RetryOnFailedConnect(true))...)
}

// connectionName is what the broker shows of a worker's connection.
const connectionName = "worker"

// Refused tells of an error of the broker that it does not let us in.
func Refused(err error) bool {
	return errors.Is(err, nats.ErrAuthorization) || errors.Is(err, nats.ErrAuthExpired) || errors.Is(err, nats.ErrAuthRevoked)
}

// Untrusted tells of an error of a connection that the broker's certificate is
// none that we trust.
func Untrusted(err error) bool {
	_, ok := errors.AsType[*tls.CertificateVerificationError](err)
	return ok
}

// RedactURLs is a broker's address, or several, without what logs in.
func RedactURLs(urls string) string {
	shown := strings.Split(urls, ",")
	for i, one := range shown {
		if at := strings.LastIndexByte(one, '@'); at >= 0 {
			scheme, _, found := strings.Cut(one, "://")
			if !found {
				scheme = "nats"
			}
			shown[i] = scheme + "://***@" + one[at+1:]
		}
	}
	return strings.Join(shown, ",")
}
