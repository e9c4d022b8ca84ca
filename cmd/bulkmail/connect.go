package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"bulkmail/subjects"
)

// defaultURL is where a worker with the embedded broker listens.
const defaultURL = nats.DefaultURL

// natsOptions are the options of every connection.
func (c config) natsOptions(name string, log *slog.Logger) []nats.Option {
	o := []nats.Option{
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
	if c.NATSCreds != "" {
		o = append(o, nats.UserCredentials(c.NATSCreds))
	}
	if c.NATSTLSCA != "" {
		o = append(o, nats.RootCAs(c.NATSTLSCA))
	}
	if c.NATSTLSCert != "" {
		o = append(o, nats.ClientCert(c.NATSTLSCert, c.NATSTLSKey))
	}
	if c.NATSInbox != "" {
		o = append(o, nats.CustomInboxPrefix(c.NATSInbox))
	}
	return o
}

// client is a command's connection to the broker.
type client struct {
	config
	nc    *nats.Conn
	js    jetstream.JetStream
	names subjects.Names
	log   *slog.Logger
}

// connect connects a command other than worker. The caller closes it.
func connect(ctx context.Context, s *streams, name string) (*client, error) {
	c, names, err := loadConfig()
	if err != nil {
		return nil, err
	}
	if c.NATSURL == "" {
		c.NATSURL = defaultURL
	}
	return c.connect(ctx, names, name, newLogger(c, s.err))
}

func (c config) connect(ctx context.Context, names subjects.Names, name string, log *slog.Logger) (*client, error) {
	cl, err := c.connectOnly(names, name, log)
	if err != nil {
		return nil, err
	}
	if err := cl.ready(ctx, slog.New(slog.DiscardHandler)); err != nil {
		cl.nc.Close()
		return nil, err
	}
	return cl, nil
}

// connectOnly connects, and does not look at what is there.
func (c config) connectOnly(names subjects.Names, name string, log *slog.Logger) (*client, error) {
	nc, err := nats.Connect(c.NATSURL, c.natsOptions(name, log)...)
	if err != nil {
		return nil, unreachable(c.NATSURL, err)
	}
	js, err := jetstream.New(nc)
	if err != nil {
		nc.Close()
		return nil, err
	}
	return &client{config: c, nc: nc, js: js, names: names, log: log}, nil
}

// unreachable says of a broker that cannot be used what to change.
func unreachable(urls string, err error) error {
	remedy := "start `bulkmail worker`, or say where the broker is with BULKMAIL_NATS_URL"
	switch {
	case refused(err):
		remedy = "log in with BULKMAIL_NATS_CREDS, or with a user and password in BULKMAIL_NATS_URL"
	case unverified(err):
		remedy = "set BULKMAIL_NATS_TLS_CA to the certificate of its CA, and use a name that is in its certificate in BULKMAIL_NATS_URL"
	}
	return fmt.Errorf("broker %s: %w: %s", redact(urls), err, remedy)
}

// refused tells that the broker does not let us in.
func refused(err error) bool {
	return errors.Is(err, nats.ErrAuthorization) || errors.Is(err, nats.ErrAuthExpired) || errors.Is(err, nats.ErrAuthRevoked)
}

// unverified tells that the broker's certificate is none that we trust.
func unverified(err error) bool {
	_, ok := errors.AsType[*tls.CertificateVerificationError](err)
	return ok
}

// connectInTime connects, now or later. What waiting does not mend is an error.
func (c config) connectInTime(name string, log *slog.Logger) (*nats.Conn, error) {
	nc, err := nats.Connect(c.NATSURL, c.natsOptions(name, log)...)
	if err == nil {
		return nc, nil
	}
	if refused(err) || unverified(err) {
		return nil, unreachable(c.NATSURL, err)
	}
	log.Warn("broker not reached, trying on", "url", redact(c.NATSURL), "error", err)
	nc, err = nats.Connect(c.NATSURL, append(c.natsOptions(name, log), nats.RetryOnFailedConnect(true))...)
	if err != nil {
		return nil, unreachable(c.NATSURL, err)
	}
	return nc, nil
}

// redact is a broker's address, or several, without what logs in.
func redact(urls string) string {
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

// ready makes what is missing on the broker, so that one can publish before the
// first worker has started.
func (c *client) ready(ctx context.Context, log *slog.Logger) error {
	err := subjects.Provision(ctx, c.js, c.names, c.provision(), log)
	if errors.Is(err, jetstream.ErrJetStreamNotEnabled) || errors.Is(err, nats.ErrNoResponders) {
		return fmt.Errorf("broker %s runs without JetStream: start it with -js", c.nc.ConnectedUrlRedacted())
	}
	return err
}

func (c config) provision() subjects.Options {
	return subjects.Options{Replicas: c.Replicas, AckWait: c.AckWait, OutcomesMaxAge: c.OutcomesMaxAge}
}

// wait waits for d; it reports false if ctx ended first.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
