package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"bulkmail/relay"
)

const deployment = "../../testdata/deploy/"

// readDeployed reads an example of the deployment, with the paths of a host made
// those of a test.
func readDeployed(t *testing.T, name string, paths *strings.Replacer) string {
	t.Helper()
	text, err := os.ReadFile(deployment + name)
	if err != nil {
		t.Fatal(err)
	}
	return paths.Replace(string(text))
}

// assignments are the lines KEY=VALUE of a unit or an environment file.
func assignments(text string) map[string][]string {
	all := make(map[string][]string)
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		key, value, found := strings.Cut(lines.Text(), "=")
		if found && !strings.HasPrefix(key, "#") {
			all[key] = append(all[key], value)
		}
	}
	return all
}

// A host is what the service finds on it.
type host struct {
	paths *strings.Replacer
	unit  map[string][]string
	env   map[string]string
}

// newHost is a host on which everything is where the examples say.
func newHost(t *testing.T) host {
	t.Helper()
	root := t.TempDir()
	etc, credentials := filepath.Join(root, "etc"), filepath.Join(root, "credentials")
	paths := strings.NewReplacer("/etc/bulkmail/", etc+"/", "/run/credentials/bulkmail.service/", credentials+"/",
		"/var/lib/bulkmail", filepath.Join(root, "lib"))
	cert, key := keyPair(t)
	for _, dir := range []string{etc, credentials} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	put := func(name, content string) {
		if err := os.WriteFile(filepath.Join(etc, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for file, from := range map[string]string{"ca.pem": cert, "cert.pem": cert, "key.pem": key} {
		content, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		put(file, string(content))
	}
	put("primary.password", "s3cret\n")
	put("relays.yaml", readDeployed(t, "relays.yaml", paths))
	h := host{paths: paths, unit: assignments(readDeployed(t, "bulkmail.service", paths)), env: make(map[string]string)}
	for key, values := range assignments(readDeployed(t, "bulkmail.env", paths)) {
		h.env[key] = values[0]
	}
	// What systemd does about credentials.
	for _, c := range h.unit["LoadCredential"] {
		name, path, _ := strings.Cut(c, ":")
		if err := os.Rename(path, filepath.Join(credentials, name)); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

func TestTheExamplesOfTheServiceAreAConfiguration(t *testing.T) {
	h := newHost(t)
	setEnvironment(t, h.env)
	if unknown := unknownVariables(); len(unknown) > 0 {
		t.Errorf("these mean nothing: %v", unknown)
	}
	c, _, relays, err := loadAll()
	if err != nil {
		t.Fatal(err)
	}
	if c.NATSTLSKey == "" || c.Replicas != 3 || len(relays) != 2 || relays[0].PasswordFile == "" {
		t.Errorf("read %+v with relays %v", c, relays)
	}
	if slices.ContainsFunc(relays, func(r relay.Config) bool { return r.Password != "" }) {
		t.Error("a password stands in a file that everybody can read")
	}
	stop, err := time.ParseDuration(h.unit["TimeoutStopSec"][0])
	if err != nil || stop < c.options(nil).StopsWithin()+5*time.Second {
		t.Errorf("TimeoutStopSec=%s cuts a drain of %s", stop, c.DrainTimeout)
	}
	if want := []string{fmt.Sprint(exitUsage)}; !slices.Equal(h.unit["RestartPreventExitStatus"], want) {
		t.Errorf("RestartPreventExitStatus=%v, want %v", h.unit["RestartPreventExitStatus"], want)
	}
}

// The service as systemd would run it, but with an embedded broker.
func TestTheServiceStartsReloadsAndStops(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	env := []string{"BULKMAIL_LISTEN=127.0.0.1:0", "BULKMAIL_HTTP=127.0.0.1:0"}
	for key, value := range h.env {
		if !strings.HasPrefix(key, "BULKMAIL_NATS_") && key != "BULKMAIL_REPLICAS" && key != "BULKMAIL_HTTP" && key != "BULKMAIL_LOG_FORMAT" {
			env = append(env, key+"="+value)
		}
	}
	command := strings.Fields(h.unit["ExecStart"][0])
	if filepath.Base(command[0]) != "bulkmail" {
		t.Fatalf("ExecStart=%s", command)
	}
	p := startBulkmail(t, env, command[1:]...)
	p.awaitLine(t, "working")
	reload := strings.Fields(strings.ReplaceAll(h.unit["ExecReload"][0], "$MAINPID", fmt.Sprint(p.cmd.Process.Pid)))
	if out, err := exec.CommandContext(t.Context(), reload[0], reload[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %v %s", reload, err, out)
	}
	p.awaitLine(t, "relays read again, nothing has changed")
	p.drain(t)
}

// The most that `systemd-analyze security` may find exposed, of 10.
const exposure = 1.5

func TestSystemdFindsTheUnitSoundAndLittleExposed(t *testing.T) {
	t.Parallel()
	need(t, "systemd-analyze")
	self, err := exec.LookPath("bulkmail")
	if err != nil {
		t.Fatal(err)
	}
	unit := filepath.Join(t.TempDir(), "bulkmail.service")
	text := readDeployed(t, "bulkmail.service", strings.NewReplacer("/usr/local/bin/bulkmail", self))
	if err := os.WriteFile(unit, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "systemd-analyze", "--man=no", "verify", unit).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("verify: %v\n%s", err, out)
	}
	out, err := exec.CommandContext(t.Context(), "systemd-analyze", "--no-pager", "--offline=true", fmt.Sprintf("--threshold=%.0f", exposure*10), "security", unit).CombinedOutput()
	if err != nil {
		t.Errorf("security: %v\n%s", err, out)
	}
	score := regexp.MustCompile(`exposure level for \S+: (\S+)`).FindSubmatch(out)
	if score == nil {
		t.Fatalf("security says no score:\n%s", out)
	}
	t.Logf("exposure level %s", score[1])
}
