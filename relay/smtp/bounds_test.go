package smtp

import (
	"bufio"
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// Somebody waits in front of `relays check` meanwhile.
func TestAPortThatSaysNothingIsGivenUpWithTheLikelyCause(t *testing.T) {
	t.Parallel()
	silent := func(context.Context, string, string) (net.Conn, error) {
		ours, _ := net.Pipe()
		return ours, nil
	}
	for name, c := range map[string]struct {
		tls  TLSMode
		dial func(context.Context, string, string) (net.Conn, error)
		want string
	}{
		"it waits for TLS":       {NoTLS, silent, "smtps"},
		"it does not answer TLS": {Implicit, silent, "TLS at all"},
		"it drops what we send": {NoTLS, func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}, "firewall"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				d := &Dialer{Addr: "mx.test:465", Domain: "client.test", Tries: 5, TLS: c.tls, NetDial: c.dial}
				began := time.Now()
				_, err := d.Dial(t.Context())
				e, ok := errors.AsType[*Error](err)
				if !ok || c.tls != Implicit && e.MBS != "MBS015" || !strings.Contains(err.Error(), c.want) {
					t.Errorf("%v", err)
				}
				if took := time.Since(began); took > 31*time.Second {
					t.Errorf("after %v", took)
				}
			})
		})
	}
}

func TestAServerThatAsksOnForEverIsGivenUp(t *testing.T) {
	t.Parallel()
	for _, mechanism := range []string{"XOAUTH2", "CRAM-MD5", "LOGIN"} {
		asked := 0
		addr := serve(t, func(conn net.Conn) {
			r := bufio.NewReader(conn)
			_, _ = conn.Write([]byte("220 mx.test\r\n"))
			for {
				line, err := r.ReadString('\n')
				switch {
				case err != nil:
					return
				case strings.HasPrefix(line, "EHLO"):
					_, _ = conn.Write([]byte("250-mx.test\r\n250 AUTH XOAUTH2 CRAM-MD5 LOGIN\r\n"))
				case strings.HasPrefix(line, "*"):
					_, _ = conn.Write([]byte("501 5.7.0 as you like\r\n"))
				default:
					asked++
					_, _ = conn.Write([]byte("334 \r\n"))
				}
			}
		})
		d := plainDialer(addr)
		d.User, d.Password, d.Auth, d.AuthInClear = "ann", "secret", mechanism, true
		_, err := d.Dial(t.Context())
		if e, ok := errors.AsType[*Error](err); !ok || !e.Unwell || e.Command != "AUTH" {
			t.Errorf("%s: %v", mechanism, err)
		}
		if asked > 10 {
			t.Errorf("%s: asked %d times", mechanism, asked)
		}
	}
}
