//go:build compose

package cluster_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	// patience bounds every wait; it is long because the machine may be busy, and
	// no test waits for it to pass.
	patience = 2 * time.Minute
	// look is the time between two looks at something that docker tells.
	look = 250 * time.Millisecond
)

// docker runs a program to its end and returns what it printed.
func docker(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := try(t.Context(), name, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func try(ctx context.Context, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	cmd := command(ctx, name, args...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s%s", name, strings.Join(args, " "), err, out, errs.Bytes())
	}
	return string(out), nil
}

// command is one that runs in the root of the repository.
func command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = "../../.."
	return cmd
}

// A container as docker inspect tells of it.
type container struct {
	ID    string `json:"Id"`
	Name  string
	State struct {
		Running  bool
		ExitCode int
		Health   struct{ Status string }
	}
	Config struct {
		Labels map[string]string
		User   string
	}
	HostConfig struct {
		ReadonlyRootfs      bool
		CapDrop             []string
		SecurityOpt         []string
		Memory              int64
		NanoCpus, PidsLimit int64
		PortBindings        map[string]any
	}
	NetworkSettings struct {
		Networks map[string]struct{ IPAddress string }
	}
}

func (c container) project() string { return c.Config.Labels["com.docker.compose.project"] }

// address is where the container is in one of the networks of docker-compose.yml.
func (c container) address(network string) string {
	return c.NetworkSettings.Networks[c.project()+"_"+network].IPAddress
}

// containers are those of a service, or of all, ended ones too, by name.
func containers(t testing.TB, service ...string) (all []container) {
	t.Helper()
	ids := strings.Fields(docker(t, "docker-compose", append([]string{"ps", "-a", "-q"}, service...)...))
	if len(ids) == 0 {
		t.Fatalf("no container of %s: is the cluster up?", service)
	}
	if err := json.Unmarshal([]byte(docker(t, "docker", append([]string{"inspect"}, ids...)...)), &all); err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(all, func(a, b container) int { return strings.Compare(a.Name, b.Name) })
	return all
}

func one(t testing.TB, service string) container {
	t.Helper()
	return containers(t, service)[0]
}

// healthy waits until n containers of a service run and are healthy.
func healthy(t testing.TB, service string, n int) {
	t.Helper()
	until(t, fmt.Sprintf("%d healthy containers of %s", n, service), func() bool {
		good := 0
		for _, c := range containers(t, service) {
			if c.State.Running && c.State.Health.Status == "healthy" {
				good++
			}
		}
		return good == n
	})
}

// until waits for something that has to be asked for.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(look)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// A visitor is on this host, and reaches the containers by their names.
type visitor struct {
	certificates string            // a folder for each name
	addresses    map[string]string // by name
}

func visit(t testing.TB) *visitor {
	t.Helper()
	v := &visitor{certificates: t.TempDir(), addresses: make(map[string]string)}
	docker(t, "docker", "cp", one(t, "certs").ID+":/tls", v.certificates)
	for service, network := range map[string]string{"nats-1": "broker", "nats-2": "broker", "nats-3": "broker", "relay-1": "mail", "relay-2": "mail"} {
		v.addresses[service] = one(t, service).address(network)
	}
	return v
}

// Dial makes a visitor a dialer for NATS.
func (v *visitor) Dial(network, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	return net.DialTimeout(network, net.JoinHostPort(v.addresses[host], port), 5*time.Second)
}

func (v *visitor) file(user, name string) string {
	return filepath.Join(v.certificates, "tls", user, name)
}

// as are the options of a connection with a user's certificate.
func (v *visitor) as(user string) []nats.Option {
	return append(v.trusting(), nats.ClientCert(v.file(user, "cert.pem"), v.file(user, "key.pem")), nats.CustomInboxPrefix("_INBOX_"+user))
}

// trusting are the options of one without a certificate.
func (v *visitor) trusting() []nats.Option {
	return []nats.Option{nats.SetCustomDialer(v), nats.SkipHostLookup(), nats.RootCAs(v.file("nats", "ca.pem")), nats.MaxReconnects(-1), nats.ReconnectWait(look)}
}

const natsURL = "tls://nats-1:4222,tls://nats-2:4222,tls://nats-3:4222"

func (v *visitor) connect(t testing.TB, user string, more ...nats.Option) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect(natsURL, append(v.as(user), more...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

func (v *visitor) certificate(t testing.TB, user string) tls.Certificate {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(v.file(user, "cert.pem"), v.file(user, "key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

func (v *visitor) authority(t testing.TB, user string) []byte {
	t.Helper()
	pem, err := os.ReadFile(v.file(user, "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	return pem
}
