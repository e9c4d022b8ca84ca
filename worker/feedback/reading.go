package feedback

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"bulkmail/envelope/returnpath"
	"bulkmail/subjects"
)

// A Mail is one that lies somewhere.
type Mail struct {
	Name string // for errors
	Text io.Reader
	Done func() error // it was read, and what it says is stored; nil: nothing to do
}

// readyWithin is how long [Read] waits until it knows what is stored.
const readyWithin = time.Minute

// Read reads mails that lie somewhere, stores what they say, and returns how many
// were what. Source is "maildir" or "mbox". A mail that is read again changes
// nothing.
func Read(ctx context.Context, js jetstream.JetStream, n subjects.Names, path returnpath.Path, o Options, all iter.Seq2[Mail, error], source string) (map[Verdict]int, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	recorder := newRecorder(js, n, o.Provide, o.Log)
	ring := &ring{file: o.KeysFile, js: js, names: n, log: o.Log}
	if _, err := ring.read(); err != nil {
		return nil, &Error{"keys", err}
	}
	working, stop := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() { recorder.run(working) })
	running.Go(func() { ring.run(working) })
	defer running.Wait()
	defer stop()
	h := &handler{recorder: recorder, ring: ring}
	for end := time.Now().Add(readyWithin); h.able() != nil; {
		if time.Now().After(end) {
			return nil, h.able()
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	counts := make(map[Verdict]int)
	reader := &mails{recorder: recorder, ring: ring, path: path, log: o.Log}
	for m, err := range all {
		if err != nil {
			return counts, err
		}
		verdict, err := reader.take(ctx, m.Text, source)
		if err == nil && m.Done != nil {
			err = m.Done()
		}
		if err != nil {
			return counts, fmt.Errorf("%s: %w", m.Name, err)
		}
		counts[verdict]++
	}
	return counts, nil
}

// Maildir yields the mails in new and cur of a maildir. One in new is moved to cur,
// as seen, when it is done.
func Maildir(dir string) iter.Seq2[Mail, error] {
	return func(yield func(Mail, error) bool) {
		for _, sub := range []string{"new", "cur"} {
			files, err := os.ReadDir(filepath.Join(dir, sub))
			if err != nil {
				yield(Mail{}, fmt.Errorf("%s is no maildir: %w", dir, err))
				return
			}
			for _, file := range files {
				if file.IsDir() || strings.HasPrefix(file.Name(), ".") {
					continue
				}
				name := filepath.Join(dir, sub, file.Name())
				f, err := os.Open(name)
				if errors.Is(err, os.ErrNotExist) {
					continue // somebody else reads here too
				}
				m := Mail{Name: name, Text: f}
				if sub == "new" {
					seen := filepath.Join(dir, "cur", strings.SplitN(file.Name(), ":", 2)[0]+":2,S")
					m.Done = func() error { return os.Rename(name, seen) }
				}
				more := yield(m, err)
				_ = f.Close() // only read
				if !more || err != nil {
					return
				}
			}
		}
	}
}

// Mbox yields the mails of an mbox file (RFC 4155): each begins with a line "From "
// behind an empty one.
func Mbox(r io.Reader) iter.Seq2[Mail, error] {
	return func(yield func(Mail, error) bool) {
		lines := bufio.NewReader(r)
		var text bytes.Buffer
		n, empty, whole := 0, true, true // the line before was
		mail := func() bool {
			return yield(Mail{Name: fmt.Sprintf("mail %d", n), Text: bytes.NewReader(text.Bytes())}, nil)
		}
		for {
			line, err := lines.ReadSlice('\n')
			over := errors.Is(err, io.EOF)
			if err != nil && !over && !errors.Is(err, bufio.ErrBufferFull) {
				yield(Mail{}, err)
				return
			}
			switch begins := empty && whole && bytes.HasPrefix(line, []byte("From ")); {
			case begins:
				if n > 0 && !mail() {
					return
				}
				text.Reset()
				n++
			case text.Len() < mailBytes:
				text.Write(bytes.TrimPrefix(line, quotedFrom(line)))
			}
			if over {
				if n > 0 {
					mail()
				}
				return
			}
			empty, whole = whole && len(bytes.TrimRight(line, "\r\n")) == 0, err == nil
		}
	}
}

// quotedFrom is what was put before a line of a mail that began like a new one.
func quotedFrom(line []byte) []byte {
	if rest := bytes.TrimLeft(line, ">"); len(rest) < len(line) && bytes.HasPrefix(rest, []byte("From ")) {
		return []byte(">")
	}
	return nil
}
