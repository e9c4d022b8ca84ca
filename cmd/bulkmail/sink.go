package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"bulkmail/relay/sink"
)

// sinkOptions are the flags of sink.
type sinkOptions struct {
	sink.Options
	rules           []string
	tlsCert, tlsKey string
	passwordFile    string
	json            bool
}

func newSink(s *streams) *cobra.Command {
	var o sinkOptions
	cmd := &cobra.Command{
		Use:   "sink",
		Short: "Run an SMTP server that takes everything, or refuses what you say",
		Long: `Run an SMTP server for trying things. It keeps no mail; on exit it prints what
it counted.

A rule is PHASE:PATTERN=REPLY, see the examples. With a certificate the sink
offers STARTTLS; with a user it takes nothing before AUTH, and where it has a
certificate too, AUTH comes after STARTTLS.

With --json it prints each message that it takes as a line of JSON: time, from,
recipients, size. The line is out before the reply is, so that what was accepted
can be compared with what the sender has on record. Counts go to standard error
then.`,
		Example: `  bulkmail sink --listen 127.0.0.1:2525
  bulkmail sink --reply 'RCPT:*@defer.test=451 4.2.0 later' --delay 100ms --max-rcpt 50
  bulkmail sink --tls-cert cert.pem --tls-key key.pem --user news --password-file secret`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.load(); err != nil {
				return usage(cmd, err)
			}
			return o.run(cmd.Context(), s)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.Listen, "listen", "127.0.0.1:2525", "`ADDRESS` to listen on")
	flags.StringArrayVar(&o.rules, "reply", nil, "a `RULE`; may be repeated, the first that matches counts")
	flags.DurationVar(&o.Delay, "delay", 0, "wait before the reply to each message")
	flags.IntVar(&o.MaxRcpt, "max-rcpt", 0, "recipients taken in one transaction, 452 after that; 0: any number")
	flags.StringVar(&o.tlsCert, "tls-cert", "", "PEM `FILE` of a certificate")
	flags.StringVar(&o.tlsKey, "tls-key", "", "PEM `FILE` of its key")
	flags.StringVar(&o.User, "user", "", "`NAME` that has to log in")
	flags.StringVar(&o.passwordFile, "password-file", "", "`FILE` with the password")
	flags.BoolVar(&o.json, "json", false, "print each message taken as a line of JSON")
	completeFlag(cmd, "reply", cobra.FixedCompletions([]string{"CONNECT", "EHLO", "MAIL:", "RCPT:", "DATA"}, cobra.ShellCompDirectiveNoFileComp|cobra.ShellCompDirectiveNoSpace))
	return cmd
}

// load reads what the flags name, and tells all that is wrong with them.
func (o *sinkOptions) load() error {
	var problems []error
	for _, text := range o.rules {
		rule, err := sink.ParseRule(text)
		if err != nil {
			problems = append(problems, fmt.Errorf("--reply: %w", err))
		}
		o.Rules = append(o.Rules, rule)
	}
	if _, _, err := net.SplitHostPort(o.Listen); err != nil {
		problems = append(problems, fmt.Errorf("--listen %q is no address; use host:port, for example 127.0.0.1:2525", o.Listen))
	}
	if o.Delay < 0 {
		problems = append(problems, fmt.Errorf("--delay %s: use 0 or more", o.Delay))
	}
	if o.MaxRcpt < 0 {
		problems = append(problems, fmt.Errorf("--max-rcpt %d: use 0 or more", o.MaxRcpt))
	}
	switch {
	case (o.tlsCert == "") != (o.tlsKey == ""):
		problems = append(problems, errors.New("--tls-cert and --tls-key belong together"))
	case o.tlsCert != "":
		pair, err := tls.LoadX509KeyPair(o.tlsCert, o.tlsKey)
		if err != nil {
			problems = append(problems, fmt.Errorf("--tls-cert: %w", err))
		}
		o.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	}
	switch {
	case (o.User == "") != (o.passwordFile == ""):
		problems = append(problems, errors.New("--user and --password-file belong together"))
	case o.passwordFile != "":
		password, err := os.ReadFile(o.passwordFile)
		password = bytes.TrimRight(password, "\r\n") // editors end a file with a line
		if err == nil && len(password) == 0 {
			err = fmt.Errorf("%s is empty", o.passwordFile)
		}
		if err != nil {
			problems = append(problems, fmt.Errorf("--password-file: %w", err))
		}
		o.Password = string(password)
	}
	return errors.Join(problems...)
}

func (o *sinkOptions) run(ctx context.Context, s *streams) error {
	counts := s.out
	if o.json {
		counts = s.err
		o.Recorder = recordTo(s)
	}
	server, err := sink.Start(o.Options)
	if err != nil {
		return err
	}
	fmt.Fprintf(s.err, "listening on %s; as a relay: BULKMAIL_RELAYS=smtp://%s\n", server.Addr(), server.Addr())
	<-ctx.Done()
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	err = server.Close(closing)
	fmt.Fprintln(counts, server.Counts())
	return err
}

// recordTo returns a recorder that prints lines of JSON to standard output.
func recordTo(s *streams) func(sink.Transaction) {
	type taken struct {
		Time       time.Time `json:"time"`
		From       string    `json:"from"`
		Recipients []string  `json:"recipients"`
		Size       int64     `json:"size"`
	}
	var mu sync.Mutex // guards the lines from each other
	return func(t sink.Transaction) {
		mu.Lock()
		defer mu.Unlock()
		if err := json.NewEncoder(s.out).Encode(taken{time.Now().UTC(), t.From, t.Recipients, t.Size}); err != nil {
			fmt.Fprintln(s.err, "bulkmail: a message is not on record:", err)
		}
	}
}
