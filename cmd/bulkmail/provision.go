package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"

	"bulkmail/subjects"
)

func newProvision(s *streams) *cobra.Command {
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "provision",
		Short: "Make what is missing on the broker, and wait until it is there",
		Long: `Make the streams, the workers' consumer, the buckets and the object store that are
missing on the broker, with BULKMAIL_REPLICAS copies of each. Workers do so
themselves where they may; this is for brokers where they may not. What is there
is left as it is. A broker or cluster that is not up yet is waited for.`,
		Example: `  BULKMAIL_NATS_URL=tls://nats-1.internal:4222 BULKMAIL_REPLICAS=3 bulkmail provision`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if timeout <= 0 {
				return usage(cmd, fmt.Errorf("--timeout %s: use more than 0", timeout))
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			return runProvision(ctx, s)
		},
	}
	cmd.Flags().DurationVar(&timeout, "timeout", time.Minute, "how long a broker is waited for")
	return cmd
}

const (
	provisionAgain = time.Second
	provisionTry   = 15 * time.Second
)

func runProvision(ctx context.Context, s *streams) error {
	c, names, err := loadConfig()
	if err != nil {
		return err
	}
	if c.NATSURL == "" {
		c.NATSURL = defaultURL
	}
	log := newLogger(c, s.err)
	for {
		err := c.provisionOnce(ctx, names, log)
		if err == nil {
			_, err = fmt.Fprintf(s.out, "everything of %s is there\n", names.Prefix())
			return err
		}
		api, ok := errors.AsType[*jetstream.APIError](err)
		if ok && api.Code < 500 && api.ErrorCode != noSuitablePeers {
			return err
		}
		log.WarnContext(ctx, "broker not ready, trying on", "error", err)
		if !wait(ctx, provisionAgain) {
			return err
		}
	}
}

// noSuitablePeers is what a cluster says that has not yet found its members.
const noSuitablePeers jetstream.ErrorCode = 10005

func (c config) provisionOnce(ctx context.Context, names subjects.Names, log *slog.Logger) error {
	ctx, cancel := context.WithTimeout(ctx, provisionTry)
	defer cancel()
	cl, err := c.connectOnly(names, "provision", log)
	if err != nil {
		return err
	}
	defer cl.nc.Close()
	return cl.ready(ctx, log)
}
