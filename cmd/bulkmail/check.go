package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"bulkmail/envelope"
	"bulkmail/envelope/dkim"
	"bulkmail/envelope/requirements"
)

// checkOptions are the flags of check.
type checkOptions struct {
	message, from, resolver, zone, kind string
}

func newCheck(s *streams) *cobra.Command {
	var o checkOptions
	cmd := &cobra.Command{
		Use:   "check --message FILE",
		Short: "Name what Gmail, Yahoo and Outlook would miss in a message",
		Long: `Compare a message, and what is configured for it, with what Gmail, Yahoo and
Outlook want of those who send 5,000 a day. Each rule that is broken is a line: who
wants it, what is wrong, what to do. Exit code 1 if there is any.

What is published in the DNS (DKIM key, DMARC, SPF) is compared with --resolver, or
with a zone file before it is published. What only a server can show is not looked
at: that the relay has a name that resolves both ways, and that it speaks TLS.`,
		Example: `  bulkmail check --message newsletter.eml --resolver 9.9.9.9:53
  bulkmail check --message newsletter.eml --zone example.com.zone`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.check(); err != nil {
				return usage(cmd, err)
			}
			return o.run(cmd.Context(), s)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.message, "message", "", "`FILE` with the message")
	flags.StringVar(&o.from, "from", "", "envelope sender `ADDRESS`, whose domain needs SPF (default: that of From)")
	flags.StringVar(&o.resolver, "resolver", "", "`HOST:PORT` of the DNS server to ask, or system")
	flags.StringVar(&o.zone, "zone", "", "zone `FILE` in place of the DNS")
	flags.StringVar(&o.kind, "kind", "bulk", "`KIND` of the campaign: bulk, or transactional, from which nobody unsubscribes")
	if err := cmd.MarkFlagRequired("message"); err != nil {
		panic(err)
	}
	return cmd
}

func (o *checkOptions) check() error {
	var problems []error
	if _, err := envelope.ParseSender(o.from); err != nil {
		problems = append(problems, fmt.Errorf("--from: %w", err))
	}
	if o.kind != "bulk" && o.kind != "transactional" {
		problems = append(problems, fmt.Errorf("--kind %q: use bulk or transactional", o.kind))
	}
	if o.resolver != "" && o.zone != "" {
		problems = append(problems, errors.New("--resolver and --zone: use one of them"))
	}
	if _, _, err := net.SplitHostPort(o.resolver); err != nil && o.resolver != "" && o.resolver != "system" {
		problems = append(problems, fmt.Errorf("--resolver %q: use HOST:PORT, for example 9.9.9.9:53, or system", o.resolver))
	}
	return errors.Join(problems...)
}

func (o *checkOptions) run(ctx context.Context, s *streams) error {
	raw, err := os.ReadFile(o.message)
	if err != nil {
		return fmt.Errorf("--message: %w", err)
	}
	c, _, err := loadConfig()
	if err != nil {
		return err
	}
	setup := requirements.Setup{
		Sender: o.from, UnsubscribeURL: c.UnsubscribeURL, Transactional: o.kind == "transactional", Now: time.Now(),
	}
	if _, err := loadKeys(c.KeysFile); err != nil {
		return err
	}
	if c.DKIMFile != "" {
		if setup.Keys, err = dkim.Load(c.DKIMFile); err != nil {
			return fmt.Errorf("BULKMAIL_DKIM_FILE: %w", err)
		}
	}
	if setup.LookupTXT, err = o.lookup(); err != nil {
		return err
	}
	findings, err := requirements.Check(ctx, string(raw), setup)
	if err != nil {
		return fmt.Errorf("--message %s: %w", o.message, err)
	}
	for _, f := range findings {
		if _, err := fmt.Fprintln(s.out, f); err != nil {
			return err
		}
	}
	if len(findings) > 0 {
		return &silentError{}
	}
	return nil
}

// lookup is what answers for the DNS; nil: nobody.
func (o *checkOptions) lookup() (func(context.Context, string) ([]string, error), error) {
	if o.zone != "" {
		text, err := os.ReadFile(o.zone)
		if err != nil {
			return nil, fmt.Errorf("--zone: %w", err)
		}
		zone, err := requirements.ParseZone(string(text))
		if err != nil {
			return nil, fmt.Errorf("--zone %s: %w", o.zone, err)
		}
		return zone.LookupTXT, nil
	}
	if o.resolver == "" {
		return nil, nil
	}
	resolver := net.DefaultResolver
	if o.resolver != "system" {
		resolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, o.resolver)
		}}
	}
	return func(ctx context.Context, name string) ([]string, error) {
		texts, err := resolver.LookupTXT(ctx, strings.TrimSuffix(name, ".")+".")
		if e, ok := errors.AsType[*net.DNSError](err); ok && e.IsNotFound {
			return nil, nil
		}
		return texts, err
	}, nil
}
