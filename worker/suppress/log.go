package suppress

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"bulkmail/envelope"
	"bulkmail/subjects"
	"bulkmail/subjects/tail"
)

// An Error is text that cannot be suppressed, or a scope that is none.
type Error struct{ Reason string }

func (e *Error) Error() string { return e.Reason }

// ParseName reads a mailbox or a domain as it stands in the log: "ann@example.net",
// "@example.net". "*@example.net" is the domain too. The error is an *[Error] or an
// *[envelope.AddressError].
func ParseName(s string) (string, error) {
	domain, isDomain := strings.CutPrefix(strings.TrimPrefix(s, "*"), "@")
	if !isDomain {
		a, err := envelope.ParseAddress(s)
		return a.Mailbox, err
	}
	a, err := envelope.ParseAddress("postmaster@" + domain)
	if err != nil {
		if wrong, ok := errors.AsType[*envelope.AddressError](err); ok {
			err = &Error{fmt.Sprintf("%q: %s", s, wrong.Reason)}
		}
		return "", err
	}
	return "@" + a.Domain, nil
}

// ParseScope checks the name of a scope. The error is an *[Error].
func ParseScope(s string) (string, error) {
	list, isList := strings.CutPrefix(s, subjects.ScopeList)
	if s == subjects.ScopeBulk || s == subjects.ScopeAll || isList && subjects.ValidID(list) {
		return s, nil
	}
	return "", &Error{fmt.Sprintf("scope %q is unknown: use bulk, all or list:NAME, with the name of a list as `publish --list` has it", s)}
}

// namesBytes is how long the names of one change are at most, where the broker
// takes messages of four times that, and changeNames how many there are.
const (
	namesBytes  = 64 << 10
	changeNames = 1000
)

// appendTimeout bounds one try to append a change.
const appendTimeout = 5 * time.Second

// Append writes a change, or several of them where there are many names, and
// returns when the broker has stored them all: every worker knows of them within a
// second. Time is set if it is zero.
func Append(ctx context.Context, js jetstream.JetStream, n subjects.Names, c subjects.SuppressionChange) error {
	if c.Time.IsZero() {
		c.Time = time.Now().UTC().Truncate(time.Millisecond)
	}
	room := min(namesBytes, int(js.Conn().MaxPayload()/4))
	names := c.Names
	for len(names) > 0 {
		size, end := 0, 0
		for end < len(names) && end < changeNames && (end == 0 || size+len(names[end]) <= room) {
			size += len(names[end]) + len(`"",`)
			end++
		}
		c.Names, names = names[:end], names[end:]
		if err := appendOne(ctx, js, n, &c); err != nil {
			return fmt.Errorf("stream %s: %w", n.SuppressionStream(), err)
		}
	}
	return nil
}

func appendOne(ctx context.Context, js jetstream.JetStream, n subjects.Names, c *subjects.SuppressionChange) error {
	data, err := json.Marshal(c)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, appendTimeout)
	defer cancel()
	// A second try must not be a second change: somebody may have come in between.
	m := &nats.Msg{Subject: n.Suppressions(), Data: data, Header: nats.Header{jetstream.MsgIDHeader: {nuid.Next()}}}
	_, err = js.PublishMsg(ctx, m)
	return err
}

// Changes yields the whole log as it is now. A change that cannot be read ends it:
// it is about somebody.
func Changes(ctx context.Context, js jetstream.JetStream, n subjects.Names) iter.Seq2[subjects.SuppressionChange, error] {
	return func(yield func(subjects.SuppressionChange, error) bool) {
		last, _, err := tail.End(ctx, js, n.SuppressionStream(), n.Suppressions())
		if err != nil {
			yield(subjects.SuppressionChange{}, err)
			return
		}
		if last == 0 {
			return
		}
		log, err := tail.Open(ctx, js, n.SuppressionStream(), n.Suppressions(), 0)
		if err != nil {
			yield(subjects.SuppressionChange{}, err)
			return
		}
		defer log.Stop(ctx)
		for log.After() < last {
			m, err := log.Next(ctx)
			var c subjects.SuppressionChange
			if err == nil {
				c, err = readChange(m)
			}
			if !yield(c, err) || err != nil {
				return
			}
		}
	}
}

func readChange(m jetstream.Msg) (c subjects.SuppressionChange, err error) {
	if err = json.Unmarshal(m.Data(), &c); err == nil && c.Op != subjects.Suppress && c.Op != subjects.Release {
		err = fmt.Errorf("op %q is unknown", c.Op)
	}
	if err != nil {
		meta, metaErr := m.Metadata()
		if metaErr != nil {
			return c, metaErr
		}
		return c, &ChangeError{Stream: meta.Stream, Sequence: meta.Sequence.Stream, Err: err}
	}
	return c, nil
}

// A ChangeError is a change that cannot be read.
type ChangeError struct {
	Stream   string
	Sequence uint64
	Err      error
}

func (e *ChangeError) Error() string {
	return fmt.Sprintf("change %d of %s cannot be read: %v", e.Sequence, e.Stream, e.Err)
}

func (e *ChangeError) Unwrap() error { return e.Err }

// Apply brings a set in line with a change.
func (s *Set) Apply(c *subjects.SuppressionChange) {
	scope := s.scopeOf(c.Scope)
	for _, name := range c.Names {
		switch {
		case c.Op == subjects.Suppress:
			s.Add(name, Mark{Scope: scope, Until: c.Until, Why: c.Why})
		case c.Scope == "":
			s.RemoveAll(name)
		default:
			s.Remove(name, scope)
		}
	}
}

// scopeOf is a scope as the set knows it. One that this release does not know
// keeps everything back: erring means not sending.
func (s *Set) scopeOf(scope string) Scope {
	list, isList := strings.CutPrefix(scope, subjects.ScopeList)
	switch {
	case isList:
		return s.listScope(list)
	case scope == subjects.ScopeBulk:
		return Bulk
	}
	return All
}

// Holds tells whether an entry for a name would change nothing: it is suppressed in
// that very scope until then, or longer.
func (s *Set) Holds(name, scope string, until time.Time) bool {
	t := s.table.Load()
	if t == nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	hash := s.hash(name)
	b := entries(&t[hash>>48])
	list, isList := strings.CutPrefix(scope, subjects.ScopeList)
	number, known := All, true
	switch {
	case isList:
		number, known = s.lists[list]
	case scope == subjects.ScopeBulk:
		number = Bulk
	}
	at, found := s.search(b, hash, number)
	if !known || !found {
		return false
	}
	_, had := meta(b[at:])
	hours := hoursOf(until)
	return had == 0 || hours != 0 && had >= hours
}
