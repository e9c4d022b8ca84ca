package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"bulkmail/envelope/escape"
	"bulkmail/envelope/list"
	"bulkmail/subjects"
	"bulkmail/worker/suppress"
)

func newSuppressImport(s *streams) *cobra.Command {
	var o suppressOptions
	cmd := &cobra.Command{
		Use: "import --why REASON FILE", Short: "Suppress all who are in a file", Args: cobra.ExactArgs(1), ValidArgsFunction: completeFiles,
		Long: `Suppress all who are in FILE (- is standard input): CSV, or any list that publish
reads. Columns named scope, reason and until go before the flags; export writes such
a file. Who is suppressed already stays so. Lines that hold no address, or another
scope, are named and left out.`,
		Example: `  bulkmail suppress import --why 'bounced at our old provider' bounces.csv
  bulkmail suppress import --why restored suppressed.csv`,
		RunE: func(cmd *cobra.Command, args []string) error {
			change, err := o.change("import")
			if err != nil {
				return usage(cmd, err)
			}
			in := s.in
			if args[0] != "-" {
				f, err := os.Open(args[0])
				if err != nil {
					return err
				}
				defer f.Close()
				in = f
			}
			l, err := list.Open(domainsAsMailboxes(in), list.Options{Data: true})
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			return withBroker(cmd, s, func(ctx context.Context, c *client) error {
				i := &suppressImport{c: c, file: args[0], given: change, pending: make(map[importKey][]string)}
				if err := i.run(ctx, l); err != nil {
					return err
				}
				return i.report(s)
			})
		},
	}
	o.addFlags(cmd)
	return cmd
}

// domainsAsMailboxes makes domains at the beginning of lines, @example.net, what a
// list takes for addresses, *@example.net.
func domainsAsMailboxes(r io.Reader) io.Reader {
	lines := bufio.NewReader(r)
	if begin, _ := lines.Peek(2); string(begin) == "\x1f\x8b" { // an error shows at the first read
		return lines // compressed
	}
	return &domainReader{lines: lines, begins: true}
}

type domainReader struct {
	lines  *bufio.Reader
	begins bool   // a line does
	rest   []byte // what was read and not handed on
}

func (d *domainReader) Read(b []byte) (int, error) {
	if len(d.rest) == 0 {
		text, err := d.lines.ReadSlice('\n')
		if len(text) == 0 {
			return 0, err // any other error comes again
		}
		d.rest = text
		if d.begins {
			if bare := bytes.TrimPrefix(text, []byte{'"'}); len(bare) > 0 && bare[0] == '@' {
				d.rest = slices.Concat(text[:len(text)-len(bare)], []byte{'*'}, bare)
			}
		}
		d.begins = err == nil
	}
	n := copy(b, d.rest)
	d.rest = d.rest[n:]
	return n, nil
}

// A suppressImport is an import under way.
type suppressImport struct {
	c     *client
	file  string
	given subjects.SuppressionChange // by the flags
	known *suppress.Set              // what is in force, or will be

	pending map[importKey][]string // names, by what is said of them
	waiting int                    // names in it

	added, there, blank int
	unusable            []*list.Error
	texts               []string // of these
}

type importKey struct {
	scope, why string
	until      time.Time
}

// importedAtOnce is how many names are kept until they are written, so that those
// with the same reason share a message.
const importedAtOnce = 20_000

func (i *suppressImport) run(ctx context.Context, l *list.List) error {
	i.known = suppress.NewSet()
	for change, err := range suppress.Changes(ctx, i.c.js, i.c.names) {
		if err != nil {
			return err
		}
		i.known.Apply(&change)
	}
	for e, err := range l.Entries() {
		if err != nil {
			return fmt.Errorf("%s: %w", i.file, err)
		}
		i.take(e)
		if i.waiting >= importedAtOnce {
			if err := i.write(ctx); err != nil {
				return err
			}
		}
	}
	i.blank = l.Blank()
	return i.write(ctx)
}

// take takes one line.
func (i *suppressImport) take(e list.Entry) {
	name, err := suppress.ParseName(escape.CellText(e.To))
	if err != nil && e.Err != nil {
		err = e.Err
	}
	change := i.given
	if err == nil {
		err = readColumns(&change, e.Data)
	}
	if err != nil {
		i.refuse(e, err)
		return
	}
	change.Names = []string{name}
	before := i.known.Version()
	if i.known.Apply(&change); i.known.Version() == before {
		i.there++
		return
	}
	i.added++
	k := importKey{change.Scope, change.Why, change.Until}
	i.pending[k] = append(i.pending[k], name)
	i.waiting++
}

// readColumns takes what a row says of scope, reason and end.
func readColumns(c *subjects.SuppressionChange, data json.RawMessage) error {
	if len(data) == 0 {
		return nil
	}
	var columns map[string]any
	if err := json.Unmarshal(data, &columns); err != nil {
		return err
	}
	for name, value := range columns {
		text, isText := value.(string)
		if !isText || text == "" {
			continue
		}
		var err error
		switch strings.ToLower(strings.TrimSpace(name)) {
		case "scope":
			c.Scope, err = suppress.ParseScope(text)
		case "reason":
			c.Why = cmp.Or(oneLine(escape.CellText(text)), c.Why)
		case "until":
			c.Until, err = parseUntil(text)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (i *suppressImport) refuse(e list.Entry, err error) {
	i.unusable = append(i.unusable, &list.Error{Line: e.Line, Reason: strings.TrimPrefix(err.Error(), fmt.Sprintf("line %d: ", e.Line))})
	i.texts = append(i.texts, e.To)
}

// write writes what is pending.
func (i *suppressImport) write(ctx context.Context) error {
	for k, names := range i.pending {
		c := i.given
		c.Scope, c.Why, c.Until, c.Names = k.scope, k.why, k.until, names
		if err := suppress.Append(ctx, i.c.js, i.c.names, c); err != nil {
			return fmt.Errorf("%w: import %s again, what is there already costs nothing", err, i.file)
		}
	}
	clear(i.pending)
	i.waiting = 0
	return nil
}

func (i *suppressImport) report(s *streams) error {
	for n, u := range i.unusable[:min(len(i.unusable), namedLines)] {
		fmt.Fprintf(s.err, "bulkmail: %s: line %d: %q: %s\n", i.file, u.Line, i.texts[n], escape.Terminal(u.Reason))
	}
	if n := len(i.unusable); n > 0 {
		fmt.Fprintf(s.err, "bulkmail: %s: %s left out\n", i.file, count(n, "line is", "lines are"))
	}
	if i.blank > 0 {
		fmt.Fprintf(s.err, "bulkmail: %s: %s no address, and left out\n", i.file, count(i.blank, "row has", "rows have"))
	}
	_, err := fmt.Fprintf(s.out, "%s suppressed, %s already\n", number(i.added), number(i.there))
	return err
}
