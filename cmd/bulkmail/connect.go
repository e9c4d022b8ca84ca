package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/user"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"bulkmail/subjects"
	"bulkmail/subjects/api"
	"bulkmail/subjects/campaign"
	"bulkmail/worker/runner"
)

// defaultURL is where a worker with the embedded broker listens.
const defaultURL = nats.DefaultURL

// natsOptions are the options of every connection.
func (c config) natsOptions(name string, log *slog.Logger) []nats.Option {
	return c.options(log).NATSOptions(name)
}

// client is a command's connection to the broker.
type client struct {
	config
	nc    *nats.Conn
	js    jetstream.JetStream
	names subjects.Names
	log   *slog.Logger
}

// campaigns is the client that a command asks.
func (c *client) campaigns(s *streams) *campaign.Client {
	return campaign.New(c.js, c.names, campaign.Options{
		Actor:   actor(),
		Trouble: func(err error) { fmt.Fprintf(s.err, "bulkmail: %v\n", err) },
	})
}

// workers is the client of their service.
func (c *client) workers() *api.Client { return api.New(c.nc, c.names, actor()) }

// alone is the client that does itself what no worker is there to do.
func (c *client) alone(ctx context.Context, s *streams) (*campaign.Client, error) {
	if err := c.ready(ctx, slog.New(slog.DiscardHandler)); err != nil {
		return nil, err
	}
	return c.campaigns(s), nil
}

// actor is who runs this process, for the record.
func actor() string {
	host, err := os.Hostname()
	if err != nil {
		return ""
	}
	u, err := user.Current()
	if err != nil {
		return "somebody@" + host
	}
	return u.Username + "@" + host
}

// connect connects a command other than worker. The caller closes it.
func connect(ctx context.Context, s *streams, name string) (*client, error) {
	cl, err := connectToAsk(s, name)
	if err != nil {
		return nil, err
	}
	if err := cl.ready(ctx, slog.New(slog.DiscardHandler)); err != nil {
		cl.nc.Close()
		return nil, err
	}
	return cl, nil
}

// connectToAsk connects a command that asks the workers, and needs nothing else on
// the broker where one answers. The caller closes it.
func connectToAsk(s *streams, name string) (*client, error) {
	c, names, err := loadConfig()
	if err != nil {
		return nil, err
	}
	if c.NATSURL == "" {
		c.NATSURL = defaultURL
	}
	return c.connectOnly(names, name, newLogger(c, s.err))
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
	case runner.Refused(err):
		remedy = "log in with BULKMAIL_NATS_CREDS, or with a user and password in BULKMAIL_NATS_URL"
	case runner.Untrusted(err):
		remedy = "set BULKMAIL_NATS_TLS_CA to the certificate of its CA, and use a name that is in its certificate in BULKMAIL_NATS_URL"
	}
	return fmt.Errorf("broker %s: %w: %s", runner.RedactURLs(urls), err, remedy)
}

// ready makes what is missing on the broker, so that one can publish before the
// first worker has started.
func (c *client) ready(ctx context.Context, log *slog.Logger) error {
	err := subjects.Provision(ctx, c.js, c.names, c.options(log).Provision(), log)
	if errors.Is(err, jetstream.ErrJetStreamNotEnabled) || errors.Is(err, nats.ErrNoResponders) {
		return fmt.Errorf("broker %s runs without JetStream: start it with -js", c.nc.ConnectedUrlRedacted())
	}
	return err
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
