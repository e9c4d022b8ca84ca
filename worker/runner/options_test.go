package runner_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bulkmail/relay"
	relayconfig "bulkmail/relay/config"
	"bulkmail/worker"
	"bulkmail/worker/runner"
)

func TestZeroOptionsHaveTheDocumentedDefaults(t *testing.T) {
	t.Parallel()
	got := runner.Options{}.WithDefaults()
	for _, field := range []struct {
		name      string
		got, want any
	}{
		{"NATSURL", got.NATSURL, ""}, // a broker in this process
		{"Prefix", got.Prefix, "bulkmail"},
		{"Replicas", got.Replicas, 1},
		{"DataDir", got.DataDir, "./bulkmail-data"},
		{"Listen", got.Listen, "127.0.0.1:4222"},
		{"Sync", got.Sync, "always"},
		{"Batches", got.Batches, 8},
		{"AckWait", got.AckWait, 30 * time.Second},
		{"OutcomesMaxAge", got.OutcomesMaxAge, 720 * time.Hour},
		{"RetryDelays", got.RetryDelays, []time.Duration{time.Minute, 5 * time.Minute, 15 * time.Minute, time.Hour, 4 * time.Hour}},
		{"RetryFor", got.RetryFor, 72 * time.Hour},
		{"InDoubt", got.InDoubt, worker.Resend},
		{"DrainTimeout", got.DrainTimeout, 30 * time.Second},
		{"DefaultHTTP", runner.DefaultHTTP, "127.0.0.1:8080"},
	} {
		if diff := cmp.Diff(field.want, field.got); diff != "" {
			t.Errorf("%s: %s", field.name, diff)
		}
	}
	if got.Log == nil {
		t.Error("there is no log to write to")
	}
	if again := (runner.Options{}).WithDefaults(); got.Name == "" || again.Name == got.Name {
		t.Errorf("two workers are called %q and %q", got.Name, again.Name)
	}
	if err := (runner.Options{}).Validate(); err != nil {
		t.Errorf("zero options are wrong: %v", err)
	}
}

// A batch that rests until its last attempt must find its journal.
func TestOutcomesAreKeptForLongerThanABatchIsRetried(t *testing.T) {
	t.Parallel()
	o := runner.Options{OutcomesMaxAge: 76 * time.Hour} // of 72h, and a last delay of 4h
	if err := o.Validate(); err == nil || !strings.Contains(err.Error(), "OutcomesMaxAge: is 76h0m0s") || !strings.Contains(err.Error(), "RetryFor") {
		t.Errorf("76h: %v", err)
	}
	o.OutcomesMaxAge += time.Hour
	if err := o.Validate(); err != nil {
		t.Errorf("77h: %v", err)
	}
}

func TestAllThatIsWrongWithOptionsIsSaidAtOnce(t *testing.T) {
	t.Parallel()
	o := runner.Options{
		Prefix: "a.b", Replicas: 6, Listen: "4222", Sync: "never", InDoubt: "maybe", Batches: -1, AckWait: -1, OutcomesMaxAge: -1,
		RetryDelays: []time.Duration{time.Minute, 0}, RetryFor: -1, DrainTimeout: -1, HTTP: "0.0.0.0:80", NATSURL: "ftp://a",
		NATSCreds: "/nowhere", NATSNkey: "/nowhere", NATSTLSCA: "/nowhere", NATSTLSKey: "/nowhere", NATSInbox: "a.*",
		Relays: []relay.Relay{{}}, RelayURLs: "smtp://relay.test?envelop_limit=1",
		ReadRelays: relayconfig.Options{Hostname: func() (string, error) { return "client.test", nil }},
	}
	_, err := runner.New(o)
	problems, ok := errors.AsType[runner.Problems](err)
	if !ok {
		t.Fatalf("the error is %v", err)
	}
	for _, want := range []string{
		"Prefix: ", "Replicas: is 6", "Listen: ", "Sync: ", "InDoubt: ", "Batches: must be", "AckWait: must be", "OutcomesMaxAge: must be", "RetryDelays: ",
		"RetryFor: must be", "DrainTimeout: must be", "HTTP: 0.0.0.0:80 can be reached from elsewhere: set HTTPTokenFile to", "NATSURL: address 1",
		"NATSCreds, NATSNkey: set one", "NATSCreds: open", "NATSNkey: open", "NATSTLSCA: open", "NATSTLSCert, NATSTLSKey: set both", "NATSTLSKey: open",
		"NATSInbox: ", "RelayURLs, URL 1: envelop_limit: unknown key", "Relays: a relay has no name",
	} {
		found := 0
		for line := range strings.Lines(problems.Error()) {
			if strings.HasPrefix(line, want) {
				found++
			}
		}
		if found != 1 {
			t.Errorf("%d lines begin with %q in\n%v", found, want, problems)
		}
	}
	if len(problems) != 22 {
		t.Errorf("%d problems:\n%v", len(problems), problems)
	}
}

func TestAProblemCanBeToldInOtherWords(t *testing.T) {
	t.Parallel()
	problems, _ := errors.AsType[runner.Problems](runner.Options{HTTP: ":80", NATSTLSCert: "x", NATSInbox: "{Prefix}*"}.Validate())
	var got []string
	for _, p := range problems {
		got = append(got, p.In(strings.ToUpper))
	}
	for _, want := range []string{
		"HTTP: :80 can be reached from elsewhere: set HTTPTOKENFILE to a file",
		"NATSTLSCERT, NATSTLSKEY: set both or neither",
		`NATSINBOX: "{Prefix}*" is no prefix`, // what a user wrote stays
	} {
		if !strings.Contains(strings.Join(got, "\n"), want) {
			t.Errorf("%q does not say %q", got, want)
		}
	}
}

func TestEachRelayHasANameOfItsOwn(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "relays.yaml")
	if err := os.WriteFile(file, []byte("relays:\n  - name: one\n    host: relay.test\n    domain: client.test\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for want, o := range map[string]runner.Options{
		"RelayURLs: no relay is configured: set it to the URL of one (smtp://host:25), or RelaysFile to a file of relays": {},
		"Relays: a relay has no name: set Config.Name":                                                                    {Relays: []relay.Relay{{Dialer: &relay.Dummy{}}}},
		"Relays: two relays are called one: give each a name of its own":                                                  {Relays: []relay.Relay{{Config: relay.Config{Name: "one"}, Dialer: &relay.Dummy{}}}, RelaysFile: file},
		file + ".not: cannot be read: no such file or directory":                                                          {RelaysFile: file + ".not"},
	} {
		if _, err := runner.New(o); err == nil || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
}
