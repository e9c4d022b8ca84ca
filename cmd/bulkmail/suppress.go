package main

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"bulkmail/envelope/escape"
	"bulkmail/subjects"
	"bulkmail/subjects/schedule"
	"bulkmail/worker/suppress"
)

func newSuppress(s *streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "suppress",
		Short: "Say who must not be sent to",
		Long: `Say who must not be sent to, and see who it is and why.

A mailbox (ann@example.net) or a whole domain (@example.net) is suppressed for bulk
mail (bulk: all campaigns but those of the kind transactional), for everything
(all), or for one list (list:NAME, the NAME that publish --list has). Upper and
lower case are the same, also before the @.

It holds on every worker a second after the command has ended, also for batches that
are in the queue: recipients who are suppressed have the final outcome suppressed,
with the reason.`,
		Example: `  bulkmail suppress add --why 'asked by phone' ann@example.net
  bulkmail suppress import --why 'bounced at our old provider' bounces.csv
  bulkmail suppress check ann@example.net`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newSuppressAdd(s), newSuppressRemove(s), newSuppressCheck(s), newSuppressList(s), newSuppressExport(s), newSuppressImport(s))
	return cmd
}

// suppressOptions are what several of the commands take.
type suppressOptions struct{ scope, until, why string }

func (o *suppressOptions) addFlags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&o.why, "why", "", "the `REASON`, which is on record with each outcome")
	cmd.Flags().StringVar(&o.scope, "scope", subjects.ScopeBulk, "`SCOPE`: bulk, all or list:NAME")
	cmd.Flags().StringVar(&o.until, "until", "", "`TIME` when it ends, such as 2027-01-31T00:00:00Z or +30d; by default never")
	completeWords(cmd, "scope", subjects.ScopeBulk, subjects.ScopeAll)
	_ = cmd.MarkFlagRequired("why") // the flag is there
}

// change is what the options say, without names.
func (o *suppressOptions) change(source string) (c subjects.SuppressionChange, err error) {
	c = subjects.SuppressionChange{Op: subjects.Suppress, Why: oneLine(o.why), Source: source, By: actor()}
	if c.Why == "" {
		return c, errors.New("--why is empty: say why, in a few words")
	}
	if c.Scope, err = suppress.ParseScope(o.scope); err != nil {
		return c, fmt.Errorf("--scope: %w", err)
	}
	if c.Until, err = parseUntil(o.until); err != nil {
		return c, fmt.Errorf("--until: %w", err)
	}
	return c, nil
}

// whyBytes is how much of a reason is kept.
const whyBytes = 200

func oneLine(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	return strings.ToValidUTF8(s[:min(len(s), whyBytes)], "")
}

// parseUntil reads a moment to come; "" is none.
func parseUntil(s string) (time.Time, error) {
	if s == "" {
		return suppress.Forever, nil
	}
	now := time.Now()
	at, err := schedule.ParseAt(s, now)
	if err == nil && !at.After(now) {
		err = fmt.Errorf("%q is over", s)
	}
	return at.UTC(), err
}

// parseNames reads the arguments of a command.
func parseNames(args []string) ([]string, error) {
	names := make([]string, len(args))
	for i, arg := range args {
		var err error
		if names[i], err = suppress.ParseName(arg); err != nil {
			return nil, err
		}
	}
	return names, nil
}

func newSuppressAdd(s *streams) *cobra.Command {
	var o suppressOptions
	cmd := &cobra.Command{
		Use: "add --why REASON ADDRESS|@DOMAIN...", Short: "Suppress mailboxes and domains", Args: cobra.MinimumNArgs(1),
		Example: `  bulkmail suppress add --why 'asked by phone' ann@example.net
  bulkmail suppress add --why 'on holiday' --scope list:weekly --until +30d bob@example.net
  bulkmail suppress add --why 'closed in May' --scope all @old.example`,
		RunE: func(cmd *cobra.Command, args []string) error {
			change, err := o.change("suppress")
			if err == nil {
				change.Names, err = parseNames(args)
			}
			if err != nil {
				return usage(cmd, err)
			}
			return withBroker(cmd, s, func(ctx context.Context, c *client) error {
				if err := suppress.Append(ctx, c.js, c.names, change); err != nil {
					return err
				}
				_, err := fmt.Fprintf(s.out, "%s suppressed, scope %s\n", number(len(change.Names)), change.Scope)
				return err
			})
		},
	}
	o.addFlags(cmd)
	return cmd
}

// withBroker runs what needs the broker.
func withBroker(cmd *cobra.Command, s *streams, do func(context.Context, *client) error) error {
	c, err := connect(cmd.Context(), s, "suppress")
	if err != nil {
		return err
	}
	defer c.nc.Close()
	return do(cmd.Context(), c)
}

// book is what is known about some names, or about all if there are none.
func (c *client) book(ctx context.Context, names ...string) (*suppress.Book, error) {
	b := suppress.NewBook(names...)
	for change, err := range suppress.Changes(ctx, c.js, c.names) {
		if err != nil {
			return nil, err
		}
		b.Apply(&change)
	}
	return b, nil
}

func newSuppressRemove(s *streams) *cobra.Command {
	var scope, why string
	cmd := &cobra.Command{
		Use: "remove ADDRESS|@DOMAIN...", Short: "Send to somebody again", Args: cobra.MinimumNArgs(1),
		Long: `Take mailboxes and domains off the list, in one scope or in all. A mailbox stays
suppressed where its domain is.`,
		Example: `  bulkmail suppress remove ann@example.net
  bulkmail suppress remove --scope list:weekly --why 'subscribed again' bob@example.net`,
		RunE: func(cmd *cobra.Command, args []string) error {
			names, err := parseNames(args)
			if err == nil && scope != "" {
				_, err = suppress.ParseScope(scope)
			}
			if err != nil {
				return usage(cmd, err)
			}
			return withBroker(cmd, s, func(ctx context.Context, c *client) error {
				return c.unsuppress(ctx, s, names, scope, oneLine(why))
			})
		},
	}
	cmd.Flags().StringVar(&scope, "scope", "", "`SCOPE`: bulk, all or list:NAME; by default each of them")
	cmd.Flags().StringVar(&why, "why", "", "the `REASON`, for the record")
	completeWords(cmd, "scope", subjects.ScopeBulk, subjects.ScopeAll)
	return cmd
}

func (c *client) unsuppress(ctx context.Context, s *streams, names []string, scope, why string) error {
	book, err := c.book(ctx, names...)
	if err != nil {
		return err
	}
	var there []string
	for _, name := range names {
		found := false
		for _, e := range book.Of(name) {
			if scope == "" || e.Scope == scope {
				fmt.Fprintf(s.out, "%s is no longer suppressed, scope %s\n", name, e.Scope)
				found = true
			}
		}
		if !found {
			fmt.Fprintf(s.out, "%s was not suppressed\n", name)
			continue
		}
		there = append(there, name)
	}
	return suppress.Append(ctx, c.js, c.names, subjects.SuppressionChange{
		Op: subjects.Release, Scope: scope, Why: why, Source: "suppress", By: actor(), Names: there,
	})
}

func newSuppressCheck(s *streams) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "check ADDRESS|@DOMAIN...", Short: "Print whether somebody is suppressed, and why", Args: cobra.MinimumNArgs(1),
		Example: "  bulkmail suppress check ann@example.net",
		RunE: func(cmd *cobra.Command, args []string) error {
			names, err := parseNames(args)
			if err != nil {
				return usage(cmd, err)
			}
			return withBroker(cmd, s, func(ctx context.Context, c *client) error { return c.checkSuppressed(ctx, s, names, asJSON) })
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, one object a line")
	return cmd
}

// A suppressionCheck is what is printed about one name.
type suppressionCheck struct {
	Address    string           `json:"address"`
	Suppressed bool             `json:"suppressed"`
	Entries    []suppress.Entry `json:"entries"` // of the mailbox, and of its domain
}

func (c *client) checkSuppressed(ctx context.Context, s *streams, names []string, asJSON bool) error {
	domain := func(name string) string { return name[strings.LastIndexByte(name, '@'):] }
	asked := names
	for _, name := range names {
		asked = append(asked, domain(name))
	}
	book, err := c.book(ctx, asked...)
	if err != nil {
		return err
	}
	now := time.Now()
	t, enc := newTable("address", "suppressed", "scope", "reason", "until", "since", "by"), encoder(s.out, isTerminal(s.out))
	for _, name := range names {
		check := suppressionCheck{Address: name, Entries: []suppress.Entry{}}
		entries := book.Of(name)
		if d := domain(name); d != name {
			entries = append(slices.Clip(entries), book.Of(d)...)
		}
		for _, e := range entries {
			if !e.Ended(now) {
				check.Entries = append(check.Entries, e)
				t.row(name, "yes", e.Scope, e.Why, untilOf(e), e.Since.Format(time.DateTime), whoOf(e))
			}
		}
		if check.Suppressed = len(check.Entries) > 0; !check.Suppressed {
			t.row(name, "no", "", "", "", "", "")
		}
		if asJSON {
			if err := enc.Encode(check); err != nil {
				return err
			}
		}
	}
	if asJSON {
		return nil
	}
	return t.print(s.out)
}

func untilOf(e suppress.Entry) string {
	if e.Until.IsZero() {
		return ""
	}
	return e.Until.Format(time.DateTime)
}

func whoOf(e suppress.Entry) string {
	if e.By == "" {
		return e.Source
	}
	return e.By
}

func newSuppressList(s *streams) *cobra.Command {
	var scope string
	var asJSON bool
	cmd := &cobra.Command{
		Use: "list", Short: "Print who is suppressed, and why", Args: cobra.NoArgs,
		Example: "  bulkmail suppress list --scope list:weekly",
		RunE: func(cmd *cobra.Command, _ []string) error {
			t, enc := newTable("address", "scope", "reason", "until", "since", "by"), encoder(s.out, isTerminal(s.out))
			err := eachSuppressed(cmd, s, scope, func(e suppress.Entry) error {
				if asJSON {
					return enc.Encode(e)
				}
				t.row(e.Name, e.Scope, e.Why, untilOf(e), e.Since.Format(time.DateTime), whoOf(e))
				return nil
			})
			if err != nil || asJSON {
				return err
			}
			return t.print(s.out)
		},
	}
	cmd.Flags().StringVar(&scope, "scope", "", "only of this `SCOPE`: bulk, all or list:NAME")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, one object a line")
	completeWords(cmd, "scope", subjects.ScopeBulk, subjects.ScopeAll)
	return cmd
}

// eachSuppressed hands on all that is in force in a scope, or in each.
func eachSuppressed(cmd *cobra.Command, s *streams, scope string, do func(suppress.Entry) error) error {
	if scope != "" {
		if _, err := suppress.ParseScope(scope); err != nil {
			return usage(cmd, err)
		}
	}
	return withBroker(cmd, s, func(ctx context.Context, c *client) error {
		book, err := c.book(ctx)
		if err != nil {
			return err
		}
		for e := range book.All(time.Now()) {
			if scope == "" || e.Scope == scope {
				if err := do(e); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

func newSuppressExport(s *streams) *cobra.Command {
	var scope string
	cmd := &cobra.Command{
		Use: "export", Short: "Print who is suppressed as CSV, as import reads it", Args: cobra.NoArgs,
		Example: "  bulkmail suppress export > suppressed.csv",
		RunE: func(cmd *cobra.Command, _ []string) error {
			w := csv.NewWriter(s.out)
			_ = w.Write([]string{"email", "scope", "reason", "until", "since", "source"}) // an error shows at the end
			err := eachSuppressed(cmd, s, scope, func(e suppress.Entry) error {
				until := ""
				if !e.Until.IsZero() {
					until = e.Until.Format(time.RFC3339)
				}
				name := e.Name
				if name[0] != '@' { // a domain is no formula
					name = escape.Cell(name)
				}
				return w.Write([]string{name, e.Scope, escape.Cell(e.Why), until, e.Since.Format(time.RFC3339), e.Source})
			})
			if err != nil {
				return err
			}
			w.Flush()
			return w.Error()
		},
	}
	cmd.Flags().StringVar(&scope, "scope", "", "only of this `SCOPE`: bulk, all or list:NAME")
	completeWords(cmd, "scope", subjects.ScopeBulk, subjects.ScopeAll)
	return cmd
}
