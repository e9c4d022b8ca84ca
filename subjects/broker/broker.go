// Package broker runs a NATS server with JetStream inside this process, for
// whoever has none yet: the demo, a first worker, tests.
//
// It listens, by default on loopback, so that any NATS client can publish to
// it. Its folder is locked: the server itself takes no lock, and two servers on
// one folder corrupt it.
package broker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// readyWithin is how long the server may take to start. Recovering a large
// store takes seconds; an error ends the wait at once.
const readyWithin = 2 * time.Minute

// Errors of Start that a caller may want to explain in its own words.
var (
	ErrAddressInUse = errors.New("address in use")
	ErrFolderInUse  = errors.New("folder in use by another process")
)

// A FolderError is an [ErrFolderInUse] that knows more.
type FolderError struct {
	Dir string
	URL string // where the broker that uses the folder listens; empty while it starts
}

func (e *FolderError) Error() string { return fmt.Sprintf("data %s: %v", e.Dir, ErrFolderInUse) }
func (e *FolderError) Unwrap() error { return ErrFolderInUse }

// Options say where the broker listens and keeps its data.
type Options struct {
	Listen     string // host:port; port 0: any free one
	Dir        string // made if missing
	SyncAlways bool   // every write reaches the disk before it is confirmed; else every two minutes
	Log        *slog.Logger
}

// A Server is a running broker.
type Server struct {
	server *server.Server
	lock   *os.File
}

// Start starts a broker and waits until it takes connections.
func Start(ctx context.Context, o Options) (*Server, error) {
	host, portText, err := net.SplitHostPort(o.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen address %q: use host:port", o.Listen)
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("listen address %q: the port is a number up to 65535", o.Listen)
	}
	lock, err := lockDir(o.Dir)
	if err != nil {
		return nil, err
	}
	if err := probe(ctx, o.Listen); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	opts := &server.Options{
		ServerName: "bulkmail",
		Host:       host,
		Port:       int(port),
		JetStream:  true,
		StoreDir:   o.Dir,
		SyncAlways: o.SyncAlways,
		NoSigs:     true,
	}
	if port == 0 {
		opts.Port = server.RANDOM_PORT
	}
	s, err := server.NewServer(opts)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("embedded broker: %w", err), lock.Close())
	}
	log := &logger{log: o.Log, fatal: make(chan string, 1)}
	s.SetLoggerV2(log, false, false, false)
	b := &Server{server: s, lock: lock}
	if err := b.start(ctx, log.fatal); err != nil {
		return nil, errors.Join(fmt.Errorf("embedded broker: %w", err), b.Close())
	}
	return b, nil
}

func (s *Server) start(ctx context.Context, fatal <-chan string) error {
	var starting sync.WaitGroup
	ready := make(chan bool, 1)
	starting.Go(func() {
		s.server.Start()
		ready <- s.server.ReadyForConnections(readyWithin)
	})
	defer starting.Wait()
	select {
	case ok := <-ready:
		if !ok {
			return errors.New("not ready to take connections")
		}
		// Whoever finds the folder locked learns where to go instead.
		_, err := s.lock.WriteAt([]byte(s.URL()), 0)
		return err
	case why := <-fatal:
		s.server.Shutdown() // ends the wait for readiness
		return errors.New(why)
	case <-ctx.Done():
		s.server.Shutdown()
		return ctx.Err()
	}
}

// URL is where clients connect to.
func (s *Server) URL() string { return s.server.ClientURL() }

// Close stops the broker, waits until its data is on disk and unlocks the
// folder. Connections should have been drained before.
func (s *Server) Close() error {
	s.server.Shutdown()
	s.server.WaitForShutdown()
	return s.lock.Close()
}

// probe finds out early, and with a cause that can be told apart, whether the
// address can be listened on; the server itself would only log it.
func probe(ctx context.Context, address string) error {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("listen on %s: %w", address, ErrAddressInUse)
	}
	if err != nil {
		return fmt.Errorf("embedded broker: %w", err)
	}
	return l.Close()
}

// lockDir takes the lock of a folder for this process; closing the file, or
// dying, gives it back.
func lockDir(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("data folder: %w", err)
	}
	path := filepath.Join(dir, "lock")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o640)
	if err != nil {
		return nil, fmt.Errorf("data folder: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		if errors.Is(err, syscall.EWOULDBLOCK) {
			url, readErr := io.ReadAll(f)
			return nil, errors.Join(&FolderError{Dir: dir, URL: string(url)}, readErr, f.Close())
		}
		return nil, errors.Join(&fs.PathError{Op: "lock", Path: dir, Err: err}, f.Close())
	}
	if err := f.Truncate(0); err != nil { // a URL of before
		return nil, errors.Join(fmt.Errorf("data folder: %w", err), f.Close())
	}
	return f, nil
}

// logger routes the server's log lines to slog. What the server calls a notice
// is of interest only to who debugs it.
type logger struct {
	log   *slog.Logger
	fatal chan string // the first fatal line
}

func (l *logger) write(level slog.Level, format string, args []any) {
	if l.log.Enabled(context.Background(), level) {
		l.log.Log(context.Background(), level, "broker says", "text", strings.TrimSpace(fmt.Sprintf(format, args...)))
	}
}

func (l *logger) Noticef(format string, args ...any) { l.write(slog.LevelDebug, format, args) }
func (l *logger) Warnf(format string, args ...any)   { l.write(slog.LevelWarn, format, args) }
func (l *logger) Errorf(format string, args ...any)  { l.write(slog.LevelError, format, args) }
func (l *logger) Debugf(format string, args ...any)  { l.write(slog.LevelDebug, format, args) }
func (l *logger) Tracef(format string, args ...any)  { l.write(slog.LevelDebug, format, args) }
func (l *logger) Fatalf(format string, args ...any) {
	l.write(slog.LevelError, format, args)
	select {
	case l.fatal <- fmt.Sprintf(format, args...):
	default:
	}
}
