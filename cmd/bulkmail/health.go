package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"bulkmail/worker/runner"
)

// healthTimeout is longer than a worker waits for its broker before it says
// that there is no answer.
const healthTimeout = 5 * time.Second

func newHealth(s *streams) *cobra.Command {
	var ready bool
	var url string
	cmd := &cobra.Command{
		Use:   "health",
		Short: "Ask the worker at BULKMAIL_HTTP whether it is alive, or ready",
		Long: `Ask the worker at BULKMAIL_HTTP whether it is alive, or with --ready whether it
can work: broker reached, journal kept, a relay usable, not draining. The exit
code is 0 if so and 1 if not. It is meant for health checks of containers, with
the environment of the worker.

With --url it asks that instead: whatever answers 200 when all is well, as the
monitoring of a NATS server does. Images without a shell have nothing else to ask
with.

A worker that found the default port taken has another one: its log says so, and
BULKMAIL_HTTP must be set to that.`,
		Example: `  bulkmail health
  BULKMAIL_HTTP=127.0.0.1:8081 bulkmail health --ready
  bulkmail health --url http://127.0.0.1:8222/healthz`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case url != "" && ready:
				return usage(cmd, errors.New("--ready and --url do not go together: say /readyz in the URL"))
			case url != "":
				return checkURL(cmd.Context(), s, url)
			}
			return checkHealth(cmd.Context(), s, ready)
		},
	}
	cmd.Flags().BoolVar(&ready, "ready", false, "ask whether it can work")
	cmd.Flags().StringVar(&url, "url", "", "ask this `URL` instead")
	return cmd
}

func checkHealth(ctx context.Context, s *streams, ready bool) error {
	c, _, err := loadConfig()
	if err != nil {
		return err
	}
	path, not := "/healthz", "not alive"
	if ready {
		path, not = "/readyz", "not ready"
	}
	status, body, err := c.askWorker(ctx, path)
	if err != nil {
		return err
	}
	if status != http.StatusOK {
		return fmt.Errorf("worker at %s is %s: %s", c.HTTP, not, strings.ReplaceAll(body, "\n", "; "))
	}
	_, err = fmt.Fprintln(s.out, body)
	return err
}

// askWorker asks the worker at BULKMAIL_HTTP, directly whatever proxy is set.
func (c config) askWorker(ctx context.Context, path string) (status int, body string, err error) {
	_, port, _ := net.SplitHostPort(c.HTTP)
	switch port {
	case "":
		return 0, "", errors.New(httpVariable + " is empty, so the worker's HTTP is off: set it to the worker's address")
	case "0":
		return 0, "", errors.New(httpVariable + " has port 0: set it to the address in the worker's log (http listening)")
	}
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://worker"+path, nil)
	if err != nil {
		return 0, "", err
	}
	request.Close = true
	response, err := askOnce(request, c.HTTP)
	if err != nil {
		return 0, "", fmt.Errorf("no worker answers at %s: %w: is it running, and is %s what its log says (http listening)?", c.HTTP, err, httpVariable)
	}
	defer response.Body.Close()
	if response.Header.Get("Server") != runner.ServerName {
		return 0, "", fmt.Errorf("what answers at %s is no worker: set %s to the address in the worker's log (http listening)", c.HTTP, httpVariable)
	}
	text, err := io.ReadAll(io.LimitReader(response.Body, 4<<10))
	if err != nil {
		return 0, "", fmt.Errorf("worker at %s: %w", c.HTTP, err)
	}
	return response.StatusCode, strings.TrimSpace(string(text)), nil
}

// askOnce asks on a connection of its own. An [http.Transport] would not do: it
// writes to the standard logger when a server speaks first, as one for SMTP does.
func askOnce(request *http.Request, address string) (*http.Response, error) {
	// An address that stands for all of this host's is dialled on this host.
	conn, err := new(net.Dialer).DialContext(request.Context(), "tcp", address)
	if err != nil {
		return nil, err
	}
	if deadline, ok := request.Context().Deadline(); ok {
		_ = conn.SetDeadline(deadline)
	}
	err = request.Write(conn)
	var response *http.Response
	if err == nil {
		response, err = http.ReadResponse(bufio.NewReader(conn), request)
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	response.Body = body{response.Body, conn}
	return response, nil
}

// A body closes the connection that it came on.
type body struct {
	io.ReadCloser
	conn net.Conn
}

func (b body) Close() error { return errors.Join(b.ReadCloser.Close(), b.conn.Close()) }

// checkURL asks anything.
func checkURL(ctx context.Context, s *streams, url string) error {
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return &usageError{fmt.Errorf("--url: %w", err)}
	}
	response, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(request) // directly, whatever proxy is set
	if err != nil {
		return fmt.Errorf("--url: %w", err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, 4<<10))
	if err != nil {
		return fmt.Errorf("--url %s: %w", url, err)
	}
	body := strings.ReplaceAll(strings.TrimSpace(string(text)), "\n", "; ")
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s is not well: %s: %s", url, response.Status, body)
	}
	_, err = fmt.Fprintln(s.out, body)
	return err
}
