package main

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"bulkmail/worker/health"
	"bulkmail/worker/metrics"
)

const (
	httpVariable = prefix + "_HTTP"
	// portsTried is how many ports are tried, from the default one up.
	portsTried = 100
	// httpLastWords bounds what is still being answered when the worker ends.
	httpLastWords = time.Second
	// shortestToken is what cannot be guessed over the network.
	shortestToken = 16
)

// checkHTTP says what is wrong with BULKMAIL_HTTP; empty: nothing.
func (c *config) checkHTTP() string {
	if c.HTTP == "" {
		return ""
	}
	host, port, err := net.SplitHostPort(c.HTTP)
	if n, portErr := strconv.ParseUint(port, 10, 16); err != nil || portErr != nil || n > 65535 {
		return fmt.Sprintf("%q is no address; use host:port, for example 127.0.0.1:8080, or nothing for off", c.HTTP)
	}
	if !loopback(host) && c.HTTPTokenFile == "" {
		return fmt.Sprintf("%s can be reached from elsewhere: set %s_HTTP_TOKEN_FILE to a file with a token for /metrics, or use 127.0.0.1:%s", c.HTTP, prefix, port)
	}
	return ""
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// readToken reads a token as it may stand in a header (RFC 6750, 2.1).
func readToken(file string) (string, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	token := strings.TrimSpace(string(b))
	if len(token) < shortestToken || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", fmt.Errorf("%s holds no token; put %d or more visible ASCII characters there, on one line", file, shortestToken)
	}
	return token, nil
}

// A site is what a worker serves over HTTP. It is open from the start of the
// process to the end of the drain.
type site struct {
	metrics *metrics.Metrics
	addr    string
	log     *slog.Logger
	server  *http.Server
	serving sync.WaitGroup
	checks  atomic.Pointer[health.Checks] // nil: the worker is not made yet
}

// newMetrics are the metrics of this program.
func newMetrics() *metrics.Metrics {
	b := thisBuild()
	return metrics.New(metrics.Build{Version: b.Version, Commit: b.Commit, Go: b.Go})
}

// openSite listens where BULKMAIL_HTTP says and serves; nil: it is off.
func (c config) openSite(m *metrics.Metrics, log *slog.Logger) (*site, error) {
	if c.HTTP == "" {
		return nil, nil //nolint:nilnil // off is no error, and close does nothing then
	}
	l, err := c.listenHTTP(log)
	if err != nil {
		return nil, err
	}
	s := &site{metrics: m, addr: l.Addr().String(), log: log}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", s.alive)
	mux.HandleFunc("GET /readyz", s.ready)
	mux.Handle("GET /metrics", c.guard(m.Handler(), log))
	s.server = &http.Server{
		Handler:           named(mux),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	s.serving.Go(func() {
		if err := s.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			log.Error("http ended", "error", err)
		}
	})
	return s, nil
}

// listenHTTP takes the next free port when the default one is taken. One that
// was asked for is that one or none.
func (c config) listenHTTP(log *slog.Logger) (net.Listener, error) {
	l, err := net.Listen("tcp", c.HTTP)
	if _, asked := os.LookupEnv(httpVariable); err != nil && !asked && errors.Is(err, syscall.EADDRINUSE) {
		host, port, _ := net.SplitHostPort(c.HTTP)
		first, _ := strconv.Atoi(port)
		for n := first + 1; n < first+portsTried && errors.Is(err, syscall.EADDRINUSE); n++ {
			if l, err = net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(n))); err == nil {
				log.Warn("http address taken, using the next free port", "taken", c.HTTP,
					"for_health", fmt.Sprintf("%s=%s bulkmail health", httpVariable, l.Addr()))
			}
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w: choose another address, or set it to nothing to do without", httpVariable, err)
	}
	return l, nil
}

// close lets what is being answered finish, for a moment.
func (s *site) close(ctx context.Context) error {
	if s == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), httpLastWords)
	defer cancel()
	err := s.server.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = s.server.Close() // whoever reads so slowly has had its time
	}
	s.serving.Wait()
	return err
}

// guard lets nobody through to h who does not know the token, if there is one.
func (c config) guard(h http.Handler, log *slog.Logger) http.Handler {
	if c.HTTPTokenFile == "" {
		return h
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Read each time, so that another token needs no restart.
		token, err := readToken(c.HTTPTokenFile)
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

// serve is for the worker that was made.
func (s *site) serve(checks *health.Checks) {
	if s != nil {
		s.log.Info("http listening", "addr", s.addr)
		s.checks.Store(checks)
	}
}

// serverName is how `bulkmail health` knows that it asks a worker.
const serverName = "bulkmail"

func named(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Server", serverName)
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
	missing := []string{"worker: starting"}
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
