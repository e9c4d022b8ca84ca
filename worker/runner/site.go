package runner

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"bulkmail/envelope/conffile"
	"bulkmail/worker/health"
)

const (
	// portsTried is how many ports are tried, from the default one up.
	portsTried = 100
	// shortestToken is what cannot be guessed over the network.
	shortestToken = 16
)

// ServerName is what a worker calls itself in the header Server, by which
// `bulkmail health` knows that it asks one.
const ServerName = "bulkmail"

// readToken reads a token as it may stand in a header (RFC 6750, 2.1).
func readToken(file string) (string, error) {
	b, err := conffile.Read(file)
	if err != nil {
		return "", err
	}
	token := strings.TrimSpace(string(b))
	if len(token) < shortestToken || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", fmt.Errorf("%s holds no token; put %d or more visible ASCII characters there, on one line", file, shortestToken)
	}
	return token, nil
}

// A site is what a worker serves over HTTP. It is open from the start of a run
// to the end of the drain.
type site struct {
	addr    string
	server  *http.Server
	serving sync.WaitGroup
	checks  atomic.Pointer[health.Checks] // nil: the worker is not made yet
}

// newSite listens where o says and serves.
func newSite(o Options) (*site, error) {
	l, err := o.listenHTTP()
	if err != nil {
		return nil, err
	}
	s := &site{addr: l.Addr().String()}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", s.alive)
	mux.HandleFunc("GET /readyz", s.ready)
	mux.Handle("GET /metrics", guard(o.HTTPTokenFile, o.Metrics.Handler(), o.Log))
	s.server = &http.Server{
		Handler:           named(mux),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(o.Log.Handler(), slog.LevelWarn),
	}
	s.serving.Go(func() {
		if err := s.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			o.Log.Error("http ended", "error", err)
		}
	})
	return s, nil
}

// listenHTTP takes the next free port when the default one is taken. One that
// was asked for is that one or none.
func (o Options) listenHTTP() (net.Listener, error) {
	if o.HTTP != "" {
		return net.Listen("tcp", o.HTTP)
	}
	l, err := net.Listen("tcp", DefaultHTTP)
	host, port, _ := net.SplitHostPort(DefaultHTTP)
	first, _ := strconv.Atoi(port)
	for n := first + 1; n < first+portsTried && errors.Is(err, syscall.EADDRINUSE); n++ {
		if l, err = net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(n))); err == nil {
			o.Log.Warn("http address taken, using the next free port", "taken", DefaultHTTP,
				"for_health", fmt.Sprintf("BULKMAIL_HTTP=%s bulkmail health", l.Addr()))
		}
	}
	return l, err
}

// close lets what is being answered finish, until ctx ends.
func (s *site) close(ctx context.Context) error {
	err := s.server.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = s.server.Close() // whoever reads so slowly has had its time
	}
	s.serving.Wait()
	return err
}

// guard lets nobody through to h who does not know the token, if there is one.
func guard(tokenFile string, h http.Handler, log *slog.Logger) http.Handler {
	if tokenFile == "" {
		return h
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Read each time, so that another token needs no restart.
		token, err := readToken(tokenFile)
		if err != nil {
			log.ErrorContext(r.Context(), "nobody can ask for metrics", "error", err)
			http.Error(w, "the token cannot be read, see the worker's log", http.StatusServiceUnavailable)
			return
		}
		said, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if !ok || subtle.ConstantTimeCompare([]byte(said), []byte(token)) != 1 {
			w.Header().Set("WWW-Authenticate", `Bearer realm="bulkmail"`)
			http.Error(w, "a token is wanted", http.StatusUnauthorized)
			return
		}
		h.ServeHTTP(w, r)
	})
}

func named(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Server", ServerName)
		w.Header().Set("Cache-Control", "no-store")
		h.ServeHTTP(w, r)
	})
}

// alive answers as long as the process does.
func (s *site) alive(w http.ResponseWriter, _ *http.Request) {
	fmt.Fprintln(w, "alive")
}

// ready says in a line each what keeps the worker from working.
func (s *site) ready(w http.ResponseWriter, r *http.Request) {
	missing := []string{starting}
	if checks := s.checks.Load(); checks != nil {
		missing = checks.Ready(r.Context())
	}
	if len(missing) == 0 {
		fmt.Fprintln(w, "ready")
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(http.StatusServiceUnavailable)
	fmt.Fprintln(w, strings.Join(missing, "\n"))
}
