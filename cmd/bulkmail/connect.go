package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

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
	nc, err := nats.Connect(c.NATSURL, c.natsOptions(name, log)...)
	if err != nil {
		return nil, unreachable(c.NATSURL, err)
	}
	js, err := jetstream.New(nc)
	if err != nil {
		nc.Close()
		return nil, err
	}
	cl := &client{config: c, nc: nc, js: js, names: names, log: log}
	if err := cl.ready(ctx); err != nil {
		nc.Close()
		return nil, err
	}
	return cl, nil
}

func unreachable(url string, err error) error {
	return fmt.Errorf("broker %s: %w: start `bulkmail worker`, or say where the broker is with BULKMAIL_NATS_URL", url, err)
}

// ready makes what is missing on the broker, so that one can publish before the
// first worker has started.
func (c *client) ready(ctx context.Context) error {
	err := subjects.Provision(ctx, c.js, c.names, c.provision(), slog.New(slog.DiscardHandler))
	if errors.Is(err, jetstream.ErrJetStreamNotEnabled) || errors.Is(err, nats.ErrNoResponders) {
		return fmt.Errorf("broker %s runs without JetStream: start it with -js", c.nc.ConnectedUrlRedacted())
	}
	return err
}

func (c config) provision() subjects.Options {
	return subjects.Options{Replicas: c.Replicas, AckWait: c.AckWait, OutcomesMaxAge: c.OutcomesMaxAge}
}
