package main

import (
	"errors"
	"fmt"
	"iter"
	"os"
	"slices"
	"unicode/utf8"

	"bulkmail/envelope"
	"bulkmail/envelope/escape"
	"bulkmail/envelope/list"
	"bulkmail/subjects/campaign"
)

// saidOfMessage are the checks that everybody would see the result of; --dry-run
// tells all.
var saidOfMessage = []string{"bcc", "body", "placeholder"}

// readMessage reads the message and looks at it.
func (o *publishOptions) readMessage() (raw string, checks []campaign.Check, err error) {
	data, err := os.ReadFile(o.message)
	if err != nil {
		return "", nil, fmt.Errorf("--message: %w", err)
	}
	look := campaign.CheckMessage
	if o.letters {
		look = campaign.CheckLetters
	}
	if checks, err = look(string(data)); err != nil {
		return "", nil, o.aboutMessage(err)
	}
	if o.inline && !utf8.Valid(data) {
		return "", nil, fmt.Errorf("--message %s: it is not UTF-8, which a batch must be: leave out --inline", o.message)
	}
	return string(data), checks, nil
}

// judgeMessage says what the message's author should know, and refuses what should
// not be sent.
func (o *publishOptions) judgeMessage(s *streams, checks []campaign.Check) error {
	for _, c := range checks {
		if slices.Contains(saidOfMessage, c.Rule) {
			fmt.Fprintf(s.err, "bulkmail: %s: %s\n", o.message, c.Text)
		}
	}
	if err := campaign.Refused(checks); err != nil {
		return o.aboutMessage(err)
	}
	return nil
}

// aboutMessage names the file in what is wrong with the message.
func (o *publishOptions) aboutMessage(err error) error {
	if field, ok := errors.AsType[*envelope.FieldError](err); ok && field.Field == "message" {
		err = errors.New(field.Reason)
	}
	return fmt.Errorf("--message %s: %w", o.message, err)
}

// openList opens the list and judges its first lines.
func (o *publishOptions) openList(s *streams) (l *list.List, closeList func(), err error) {
	in, closeList := s.in, func() {}
	if o.list != "-" {
		f, err := os.Open(o.list)
		if err != nil {
			return nil, nil, err
		}
		in, closeList = f, func() { f.Close() }
	}
	if l, err = list.Open(in, list.Options{Column: o.column, Data: o.letters}); err != nil {
		closeList()
		return nil, nil, fmt.Errorf("%s: %w", o.list, err)
	}
	return l, closeList, nil
}

// namedLines is how many unusable lines are named; who wants more of them has
// --json and outcomes.
const namedLines = 20

// warnUnusable names the lines that hold no address.
func (o *publishOptions) warnUnusable(s *streams, lines []campaign.Unusable, blank int) {
	for _, u := range lines[:min(len(lines), namedLines)] {
		fmt.Fprintf(s.err, "bulkmail: %s: line %d: %q: %s\n", o.list, u.Line, u.Text, escape.Terminal(u.Reason))
	}
	if len(lines) > 0 {
		fmt.Fprintf(s.err, "bulkmail: %s: %s no address that can be sent to, and end as rejected, 553\n", o.list, count(len(lines), "line has", "lines have"))
	}
	if blank > 0 {
		fmt.Fprintf(s.err, "bulkmail: %s: %s no address, and left out\n", o.list, count(blank, "row has", "rows have"))
	}
}

// of names the list in its errors.
func of(name string, list iter.Seq2[campaign.Recipient, error]) iter.Seq2[campaign.Recipient, error] {
	return func(yield func(campaign.Recipient, error) bool) {
		for r, err := range list {
			if err != nil {
				err = fmt.Errorf("%s: %w", name, err)
			}
			if !yield(r, err) {
				return
			}
		}
	}
}
