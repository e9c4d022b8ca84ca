package relay

import (
	"context"
	"io"
	"os"
	"sync"
	"time"

	"bulkmail/relay/smtp"
)

// conversation is Mail::Bulkmail's CONVERSATION: a log of what is said and
// heard, of one relay or of several. A file is open while a session that writes to it
// is.
type conversation struct {
	path string // empty: w stays open
	now  func() time.Time

	mu    sync.Mutex
	w     io.Writer
	file  *os.File
	users int
}

// use opens the file for one more session.
func (c *conversation) use() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.path != "" && c.users == 0 {
		f, err := openAppend(c.path)
		if err != nil {
			return err
		}
		c.file, c.w = f, f
	}
	c.users++
	return nil
}

// leave closes the file after the last session.
func (c *conversation) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.users--
	if c.file != nil && c.users == 0 {
		_ = c.file.Close()
		c.file, c.w = nil, nil
	}
}

// line writes one line. A log that cannot be written (a full disk) must not
// stop the mail.
func (c *conversation) line(relay, line string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.w == nil {
		return
	}
	b := c.now().UTC().AppendFormat(make([]byte, 0, 128), "2006-01-02T15:04:05.000Z ")
	b = append(b, relay...)
	b = append(b, ' ')
	b = append(b, line...)
	_, _ = c.w.Write(append(b, '\n'))
}

// logged is a dialer whose sessions are written down.
type logged struct {
	*smtp.Dialer
	to *conversation
}

func (l *logged) Dial(ctx context.Context) (Session, error) {
	if err := l.to.use(); err != nil {
		return nil, &smtp.Error{Loud: true, Unwell: true, Err: err}
	}
	s, err := l.Dialer.Dial(ctx)
	if err != nil {
		l.to.leave()
		return nil, err
	}
	return &loggedSession{s, l.to}, nil
}

// loggedSession has all that an [smtp.Session] has.
type loggedSession struct {
	*smtp.Session
	to *conversation
}

func (s *loggedSession) Close() error {
	defer s.to.leave()
	return s.Session.Close()
}
