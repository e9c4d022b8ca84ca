// Package feedback takes what comes back after a relay has accepted a message:
// unsubscribes, bounces and complaints. `bulkmail feedback` is this package with flags
// around it; any number of them may run.
//
// The way of a bounce or complaint:
//
//  1. Workers put a token into MAIL FROM: see package returnpath. [Maildir] and [Mbox]
//     give out mail that came to such an address (reading.go).
//  2. Package bounce reads it. The token names the claim of a batch, and the journal of
//     the batch says who was sent to (mail.go). A token of a letter names one mailbox;
//     one of a message to many leaves it to the report, which must name somebody of the
//     batch: whoever got such a message could say of the others what he likes.
//  3. rules.go: what follows from it. recorder.go stores it.
//
// The way of an unsubscribe:
//
//  1. The letter has an address of its own (RFC 8058), which ends with a token: see
//     package keys. The token holds campaign, list and mailbox, encrypted, so that it
//     works as long as its key is there, whatever became of the campaign.
//  2. http.go: POST is an unsubscribe. Anything else changes nothing, for scanners of
//     links fetch all that is in a mail; GET shows a page with one button (page.go),
//     which posts.
//  3. recorder.go: the mailbox is suppressed, for the list if the campaign has one,
//     else for bulk mail, and an event is stored. The answer comes when both are on
//     the broker.
//
// Whoever tries tokens learns nothing: the answer to one that nobody made is that to
// a good one, takes as long, and is an error while the broker is away.
package feedback

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"bulkmail/envelope/keys"
	"bulkmail/subjects"
	"bulkmail/worker/keyring"
)

// An Error is a part that cannot be opened.
type Error struct {
	Part string // "http"
	Err  error
}

func (e *Error) Error() string { return e.Part + ": " + e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// Options are the settings of a [Server].
type Options struct {
	HTTP     string            // host:port
	TLSCert  string            // PEM files; read again when they change. Defaults to none: plain HTTP
	TLSKey   string            //
	KeysFile string            // see package keys; read again when it changes. Defaults to the key that workers share on the broker
	Rate     int               // unsubscribes a second that one address may ask for. Defaults to 200
	Provide  subjects.Options  // of streams that are missing
	Log      *slog.Logger      // Defaults to nowhere
	Opened   func(addr string) // is told where it listens, if not nil
}

// closing is how long what is being answered may take at the end.
const closing = 5 * time.Second

// Run takes what comes back until ctx ends. It may begin while the broker is away.
func Run(ctx context.Context, js jetstream.JetStream, n subjects.Names, o Options) error {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	recorder := newRecorder(js, n, o.Provide, o.Log)
	ring := &ring{file: o.KeysFile, js: js, names: n, log: o.Log}
	if _, err := ring.read(); err != nil {
		return &Error{"keys", err}
	}
	listener, err := o.listen()
	if err != nil {
		return &Error{"http", err}
	}
	if o.Opened != nil {
		o.Opened(listener.Addr().String())
	}
	server := &http.Server{
		Handler:           newHandler(recorder, ring, o),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(o.Log.Handler(), slog.LevelDebug), // strangers' mistakes
	}
	working, stop := context.WithCancel(context.WithoutCancel(ctx))
	var all sync.WaitGroup
	all.Go(func() { recorder.run(working) })
	all.Go(func() { ring.run(working) })
	served := make(chan error, 1)
	all.Go(func() { served <- server.Serve(listener) })
	select {
	case <-ctx.Done():
		within, cancel := context.WithTimeout(working, closing)
		if err = server.Shutdown(within); errors.Is(err, context.DeadlineExceeded) {
			err = server.Close() // whoever reads so slowly has had its time
		}
		cancel()
	case err = <-served:
	}
	stop()
	all.Wait()
	if err != nil {
		return &Error{"http", err}
	}
	return nil
}

// listen opens where HTTP is spoken.
func (o Options) listen() (net.Listener, error) {
	l, err := net.Listen("tcp", o.HTTP)
	if err != nil || o.TLSCert == "" {
		return l, err
	}
	pair := &certificate{cert: o.TLSCert, key: o.TLSKey}
	if _, err := pair.get(nil); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return tls.NewListener(l, &tls.Config{GetCertificate: pair.get, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}), nil
}

// A certificate is read again when its file changes.
type certificate struct {
	cert, key string

	mu   sync.Mutex // guards what follows
	pair *tls.Certificate
	read stamp
}

func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := stampOf(c.cert)
	if c.pair != nil && now == c.read {
		return c.pair, nil
	}
	pair, err := tls.LoadX509KeyPair(c.cert, c.key)
	if err != nil {
		if c.pair != nil {
			return c.pair, nil // half of a new one is there
		}
		return nil, err
	}
	c.pair, c.read = &pair, now
	return c.pair, nil
}

// A stamp tells a file from what it was before.
type stamp struct {
	changed time.Time
	size    int64
}

func stampOf(file string) stamp {
	info, err := os.Stat(file)
	if err != nil {
		return stamp{}
	}
	return stamp{info.ModTime(), info.Size()}
}

// A ring has the keys: of a file, or those that workers share.
type ring struct {
	file  string
	js    jetstream.JetStream
	names subjects.Names
	log   *slog.Logger

	mu   sync.Mutex // guards what follows
	keys keys.Keys
	seen stamp
}

// keysAgain is how often the keys on the broker are asked for while there are none.
const keysAgain = time.Second

// read returns the keys as they are now; none: they are on the broker, and not read
// yet.
func (r *ring) read() (keys.Keys, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.file == "" {
		return r.keys, nil
	}
	now := stampOf(r.file)
	if len(r.keys) > 0 && now == r.seen {
		return r.keys, nil
	}
	text, err := os.ReadFile(r.file)
	var read keys.Keys
	if err == nil {
		if read, err = keys.Parse(string(text)); err != nil {
			err = fmt.Errorf("%s: %w", r.file, err)
		}
	}
	if err != nil && len(r.keys) > 0 {
		r.log.Error("keys left as they were", "error", err)
		r.seen = now
		return r.keys, nil
	}
	r.keys, r.seen = read, now
	return read, err
}

// run fetches the keys on the broker.
func (r *ring) run(ctx context.Context) {
	for r.file == "" {
		read, err := keyring.Shared(ctx, r.js, r.names)
		if err == nil {
			r.mu.Lock()
			r.keys = read
			r.mu.Unlock()
			return
		}
		if ctx.Err() != nil {
			return
		}
		r.log.DebugContext(ctx, "no keys yet", "error", err)
		select {
		case <-time.After(keysAgain):
		case <-ctx.Done():
			return
		}
	}
}
