package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"bulkmail/relay/sink"
)

func newSink(s *streams) *cobra.Command {
	var o sink.Options
	var rules []string
	cmd := &cobra.Command{
		Use:   "sink",
		Short: "Run an SMTP server that takes everything, or refuses what you say",
		Long: `Run an SMTP server for trying things. It keeps no mail; on exit it prints what
it counted.

A rule is PHASE:PATTERN=REPLY, see the examples.`,
		Example: `  bulkmail sink --listen 127.0.0.1:2525
  bulkmail sink --reply 'RCPT:*@defer.test=451 4.2.0 later' --delay 100ms --max-rcpt 50`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var problems []error
			for _, text := range rules {
				rule, err := sink.ParseRule(text)
				if err != nil {
					problems = append(problems, fmt.Errorf("--reply: %w", err))
				}
				o.Rules = append(o.Rules, rule)
			}
			if err := errors.Join(problems...); err != nil {
				return usage(cmd, err)
			}
			return runSink(cmd.Context(), s, o)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.Listen, "listen", "127.0.0.1:2525", "`ADDRESS` to listen on")
	flags.StringArrayVar(&rules, "reply", nil, "a `RULE`; may be repeated, the first that matches counts")
	flags.DurationVar(&o.Delay, "delay", 0, "wait before the reply to each message")
	flags.IntVar(&o.MaxRcpt, "max-rcpt", 0, "recipients taken in one transaction, 452 after that; 0: any number")
	completeFlag(cmd, "reply", cobra.FixedCompletions([]string{"CONNECT", "EHLO", "MAIL:", "RCPT:", "DATA"}, cobra.ShellCompDirectiveNoFileComp|cobra.ShellCompDirectiveNoSpace))
	return cmd
}

func runSink(ctx context.Context, s *streams, o sink.Options) error {
	server, err := sink.Start(o)
	if err != nil {
		return err
	}
	fmt.Fprintf(s.err, "listening on %s; as a relay: BULKMAIL_RELAYS=smtp://%s\n", server.Addr(), server.Addr())
	<-ctx.Done()
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	err = server.Close(closing)
	fmt.Fprintln(s.out, server.Counts())
	return err
}
