package main

import (
	"errors"
	"log/slog"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bulkmail/envelope/dkim"
	"bulkmail/worker"
	"bulkmail/worker/runner"
)

// setEnvironment makes the BULKMAIL_ variables those of env and no others. It
// keeps the test from running beside others, as the environment is one.
func setEnvironment(t *testing.T, env map[string]string) {
	t.Helper()
	for _, entry := range os.Environ() {
		key, value, _ := strings.Cut(entry, "=")
		if strings.HasPrefix(key, prefix+"_") {
			t.Setenv(key, value) // is put back at the end
			if err := os.Unsetenv(key); err != nil {
				t.Fatal(err)
			}
		}
	}
	for key, value := range env {
		t.Setenv(key, value)
	}
}

func TestWithoutAnEnvironmentTheDefaultsAreThoseOfTheDesign(t *testing.T) {
	setEnvironment(t, nil)
	got, names, err := loadConfig()
	if err != nil {
		t.Fatal(err)
	}
	want := config{
		Prefix: "bulkmail", Replicas: 1, DataDir: "./bulkmail-data", Listen: "127.0.0.1:4222", Sync: "always",
		Batches: 8, AckWait: 30 * time.Second, OutcomesMaxAge: 30 * 24 * time.Hour,
		RetryDelays: []time.Duration{time.Minute, 5 * time.Minute, 15 * time.Minute, time.Hour, 4 * time.Hour},
		RetryFor:    72 * time.Hour, InDoubt: worker.Resend, DrainTimeout: 30 * time.Second, MessageMemory: 256e6,
		HTTP: "127.0.0.1:8080", LogLevel: slog.LevelInfo, LogFormat: "auto",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if names.BatchesStream() != "BULKMAIL_BATCHES" {
		t.Errorf("batches are in %s", names.BatchesStream())
	}
}

// ofCommands tells whether a variable is for commands alone: logging, feedback.
func ofCommands(field string) bool {
	return strings.HasPrefix(field, "Log") || strings.HasPrefix(field, "Feedback")
}

func TestTheDefaultsOfTheEnvironmentAreThoseOfTheLibrary(t *testing.T) {
	setEnvironment(t, nil)
	c, _, err := loadConfig()
	if err != nil {
		t.Fatal(err)
	}
	defaults := runner.Options{HTTP: runner.DefaultHTTP}.WithDefaults()
	environment, library := reflect.ValueOf(c), reflect.ValueOf(defaults)
	for field := range environment.Type().Fields() {
		theirs := library.FieldByName(field.Name)
		if !theirs.IsValid() {
			if !ofCommands(field.Name) {
				t.Errorf("the library has no %s", field.Name)
			}
			continue
		}
		if diff := cmp.Diff(theirs.Interface(), environment.FieldByIndex(field.Index).Interface()); diff != "" {
			t.Errorf("%s: in the library -, in the environment +:\n%s", field.Name, diff)
		}
	}
	if o := c.options(nil); o.HTTP != "" {
		t.Errorf("%s is asked for, and not the next free port", o.HTTP)
	}
}

func TestEachVariableReachesTheWorker(t *testing.T) {
	c := config{LogFormat: "json"}
	fields := reflect.ValueOf(&c).Elem()
	for i := range fields.NumField() {
		switch field := fields.Field(i); {
		case field.Kind() == reflect.String:
			field.SetString(fields.Type().Field(i).Name)
		case field.CanInt():
			field.SetInt(int64(i + 1))
		default:
			field.Set(reflect.ValueOf([]time.Duration{time.Duration(i + 1)}))
		}
	}
	t.Setenv(httpVariable, c.HTTP)
	library := reflect.ValueOf(c.options(slog.New(slog.DiscardHandler)))
	for field := range fields.Type().Fields() {
		if ofCommands(field.Name) {
			continue
		}
		if diff := cmp.Diff(fields.FieldByIndex(field.Index).Interface(), library.FieldByName(field.Name).Interface()); diff != "" {
			t.Errorf("%s: %s", field.Name, diff)
		}
	}
	c.HTTP = ""
	if o := c.options(nil); o.HTTP != runner.HTTPOff {
		t.Errorf("set and empty, HTTP is %q", o.HTTP)
	}
}

func TestAVariableThatIsSetToNothingIsNotItsDefault(t *testing.T) {
	setEnvironment(t, map[string]string{"BULKMAIL_DATA_DIR": "", "BULKMAIL_SYNC": "", "BULKMAIL_REPLICAS": "0", "BULKMAIL_RETRY_DELAYS": "", "BULKMAIL_HTTP": ""})
	_, _, err := loadConfig()
	want := "BULKMAIL_REPLICAS: must be more than 0\nBULKMAIL_DATA_DIR: is empty; leave it unset for ./bulkmail-data\n" +
		"BULKMAIL_SYNC: is empty; leave it unset for always\nBULKMAIL_RETRY_DELAYS: is empty; leave it unset for 1m,5m,15m,1h,4h"
	if err == nil || err.Error() != want {
		t.Errorf("%v\nwant\n%s", err, want)
	}
}

func TestEachVariableIsRead(t *testing.T) {
	cert, key := keyPair(t)
	creds := credentials(t)
	token := writeFile(t, "token", "0123456789abcdef\n")
	keysFile := writeFile(t, "keys", "k1 "+strings.Repeat("secret--", 4)+"\n")
	made, err := dkim.Generate("ed25519")
	if err != nil {
		t.Fatal(err)
	}
	dkimFile := writeFile(t, "dkim.yaml", "keys:\n  - domain: example.com\n    selector: s1\n    key_file: "+writeFile(t, "key.pem", string(made))+"\n")
	setEnvironment(t, map[string]string{
		"BULKMAIL_NATS_URL": "nats://broker:4222", "BULKMAIL_NATS_CREDS": creds, "BULKMAIL_NATS_TLS_CA": cert,
		"BULKMAIL_NATS_TLS_CERT": cert, "BULKMAIL_NATS_TLS_KEY": key, "BULKMAIL_NATS_INBOX": "_INBOX_mine",
		"BULKMAIL_PREFIX": "Mine-2", "BULKMAIL_REPLICAS": "3", "BULKMAIL_DATA_DIR": "/data", "BULKMAIL_LISTEN": ":4333",
		"BULKMAIL_SYNC": "interval", "BULKMAIL_RELAYS": "smtp://a", "BULKMAIL_RELAYS_FILE": "r.yaml", "BULKMAIL_BATCHES": "16",
		"BULKMAIL_ACK_WAIT": "1m", "BULKMAIL_OUTCOMES_MAX_AGE": "4h", "BULKMAIL_RETRY_DELAYS": "1s,2s", "BULKMAIL_RETRY_FOR": "3h",
		"BULKMAIL_HTTP": ":8081", "BULKMAIL_HTTP_TOKEN_FILE": token,
		"BULKMAIL_IN_DOUBT": "resend", "BULKMAIL_DRAIN_TIMEOUT": "4s", "BULKMAIL_MESSAGE_MEMORY": "1GiB", "BULKMAIL_LOG_LEVEL": "debug", "BULKMAIL_LOG_FORMAT": "json",
		"BULKMAIL_KEYS_FILE": keysFile, "BULKMAIL_DKIM_FILE": dkimFile, "BULKMAIL_UNSUBSCRIBE_URL": "https://u.example.com/", "BULKMAIL_UNSUBSCRIBE_MAILTO": "leave@example.com",
		"BULKMAIL_RETURN_PATH": "b+{token}@b.example.com", "BULKMAIL_FEEDBACK_HTTP": ":8443", "BULKMAIL_FEEDBACK_TLS_CERT": cert, "BULKMAIL_FEEDBACK_TLS_KEY": key,
	})
	got, names, err := loadConfig()
	if err != nil {
		t.Fatal(err)
	}
	want := config{
		NATSURL: "nats://broker:4222", NATSCreds: creds, NATSTLSCA: cert, NATSTLSCert: cert, NATSTLSKey: key, NATSInbox: "_INBOX_mine",
		Prefix: "Mine-2", Replicas: 3, DataDir: "/data", Listen: ":4333", Sync: "interval", RelayURLs: "smtp://a", RelaysFile: "r.yaml",
		Batches: 16, AckWait: time.Minute, OutcomesMaxAge: 4 * time.Hour, RetryDelays: []time.Duration{time.Second, 2 * time.Second},
		RetryFor: 3 * time.Hour, InDoubt: "resend", DrainTimeout: 4 * time.Second, MessageMemory: 1 << 30,
		HTTP: ":8081", HTTPTokenFile: token, LogLevel: slog.LevelDebug, LogFormat: "json",
		KeysFile: keysFile, DKIMFile: dkimFile, UnsubscribeURL: "https://u.example.com/", UnsubscribeMailto: "leave@example.com",
		ReturnPath: "b+{token}@b.example.com", FeedbackHTTP: ":8443", FeedbackTLSCert: cert, FeedbackTLSKey: key,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if names.BatchesStream() != "MINE-2_BATCHES" || names.Batches("c") != "Mine-2.batches.c" {
		t.Errorf("batches are in %s, on %s", names.BatchesStream(), names.Batches("c"))
	}
	for field := range reflect.TypeFor[config]().Fields() {
		if reflect.ValueOf(got).FieldByIndex(field.Index).IsZero() && field.Name != "LogLevel" && field.Name != "NATSNkey" { // instead of credentials
			t.Errorf("%s is not part of this test", field.Name)
		}
	}
}

func TestVariablesOfOthersAreLeftAlone(t *testing.T) {
	setEnvironment(t, map[string]string{"PREFIX": "/usr/local", "LOG_LEVEL": "trace", "LISTEN": "80", "NATS_URL": "nats://elsewhere:4222", "SYNC": "1"})
	c, _, err := loadConfig()
	if err != nil {
		t.Fatal(err)
	}
	if c.NATSURL != "" || c.Prefix != "bulkmail" {
		t.Errorf("taken from others: %+v", c)
	}
}

func TestEveryProblemIsReportedAtOnce(t *testing.T) {
	problems := map[string]struct{ value, want string }{
		"BULKMAIL_PREFIX":           {"a.b", `BULKMAIL_PREFIX: prefix "a.b": use 1 to 64 letters, digits, - or _`},
		"BULKMAIL_REPLICAS":         {"6", "BULKMAIL_REPLICAS: is 6; use 1 to 5"},
		"BULKMAIL_LISTEN":           {"4222", `BULKMAIL_LISTEN: "4222" is no address; use host:port, for example 127.0.0.1:4222`},
		"BULKMAIL_SYNC":             {"yes", `BULKMAIL_SYNC: "yes" is unknown; use always or interval`},
		"BULKMAIL_BATCHES":          {"0", "BULKMAIL_BATCHES: must be more than 0"},
		"BULKMAIL_ACK_WAIT":         {"30", `BULKMAIL_ACK_WAIT: "30" is not a duration such as 30s, 5m or 72h`},
		"BULKMAIL_OUTCOMES_MAX_AGE": {"-1h", "BULKMAIL_OUTCOMES_MAX_AGE: must be more than 0"},
		"BULKMAIL_RETRY_DELAYS":     {"1m,0s", "BULKMAIL_RETRY_DELAYS: give one or more durations above 0, for example 1m,5m,1h"},
		"BULKMAIL_RETRY_FOR":        {"0s", "BULKMAIL_RETRY_FOR: must be more than 0"},
		"BULKMAIL_IN_DOUBT":         {"maybe", `BULKMAIL_IN_DOUBT: "maybe" is unknown; use `},
		"BULKMAIL_MESSAGE_MEMORY":   {"plenty", `BULKMAIL_MESSAGE_MEMORY: "plenty" is not a size such as 64MB or 1GB`},
		"BULKMAIL_DRAIN_TIMEOUT":    {"soon", `BULKMAIL_DRAIN_TIMEOUT: "soon" is not a duration such as 30s, 5m or 72h`},
		"BULKMAIL_LOG_LEVEL":        {"loud", `BULKMAIL_LOG_LEVEL: "loud" is not debug, info, warn or error`},
		"BULKMAIL_LOG_FORMAT":       {"xml", `BULKMAIL_LOG_FORMAT: "xml" is unknown; use auto or text or json`},
		"BULKMAIL_NATS_URL":         {"http://user:secret@broker", "BULKMAIL_NATS_URL: address 1 is not like nats://host:4222 ("},
		"BULKMAIL_NATS_CREDS":       {"/nowhere", "BULKMAIL_NATS_CREDS: open /nowhere: no such file or directory"},
		"BULKMAIL_NATS_TLS_CA":      {"/nowhere", "BULKMAIL_NATS_TLS_CA: open /nowhere: no such file or directory"},
		"BULKMAIL_HTTP":             {"0.0.0.0", `BULKMAIL_HTTP: "0.0.0.0" is no address; use host:port, for example 127.0.0.1:8080`},
		"BULKMAIL_HTTP_TOKEN_FILE":  {"/nowhere", "BULKMAIL_HTTP_TOKEN_FILE: open /nowhere: no such file or directory"},
		"BULKMAIL_NATS_INBOX":       {"mine.*", `BULKMAIL_NATS_INBOX: "mine.*" is no prefix of a subject; use for example _INBOX_worker`},
		"BULKMAIL_NATS_TLS_CERT":    {"/nowhere", "BULKMAIL_NATS_TLS_CERT, BULKMAIL_NATS_TLS_KEY: set both or neither"},
	}
	env := make(map[string]string)
	for key, p := range problems {
		env[key] = p.value
	}
	setEnvironment(t, env)
	_, _, err := loadConfig()
	if _, ok := errors.AsType[*usageError](err); !ok {
		t.Fatalf("error is %v, no usage error", err)
	}
	lines := strings.Split(err.Error(), "\n")
	for key, p := range problems {
		found := 0
		for _, line := range lines {
			if strings.HasPrefix(line, p.want) {
				found++
			}
		}
		if found != 1 {
			t.Errorf("%s=%s: %d lines %q in\n%s", key, p.value, found, p.want, err)
		}
	}
	// The certificate that is not there is a problem of its own.
	if len(lines) != len(problems)+1 {
		t.Errorf("%d lines for %d problems:\n%s", len(lines), len(problems)+1, err)
	}
}

func TestOffLoopbackATokenIsWanted(t *testing.T) {
	short := writeFile(t, "short", "secret\n")
	two := writeFile(t, "two", "0123456789abcdef\n0123456789abcdef\n")
	token := writeFile(t, "token", "0123456789abcdef\n")
	for _, test := range []struct{ http, file, want string }{
		{"", "", ""},
		{"127.0.0.1:0", "", ""},
		{"127.1.2.3:80", "", ""},
		{"localhost:80", "", ""},
		{"[::1]:80", "", ""},
		{":80", "", "BULKMAIL_HTTP: :80 can be reached from elsewhere: set BULKMAIL_HTTP_TOKEN_FILE to a file with a token for /metrics, or use 127.0.0.1:80"},
		{"0.0.0.0:80", "", "BULKMAIL_HTTP: 0.0.0.0:80 can be reached from elsewhere: set "},
		{"[::]:80", "", "BULKMAIL_HTTP: [::]:80 can be reached from elsewhere: set "},
		{"worker.example.net:80", "", "BULKMAIL_HTTP: worker.example.net:80 can be reached from elsewhere: set "},
		{":80", token, ""},
		{":80", short, "BULKMAIL_HTTP_TOKEN_FILE: " + short + " holds no token; put 16 or more visible ASCII characters there, on one line"},
		{":80", two, "BULKMAIL_HTTP_TOKEN_FILE: " + two + " holds no token; "},
		{"127.0.0.1:x", "", `BULKMAIL_HTTP: "127.0.0.1:x" is no address; `},
		{"127.0.0.1:65536", "", `BULKMAIL_HTTP: "127.0.0.1:65536" is no address; `},
	} {
		setEnvironment(t, map[string]string{"BULKMAIL_HTTP": test.http, "BULKMAIL_HTTP_TOKEN_FILE": test.file})
		_, _, err := loadConfig()
		switch {
		case test.want == "" && err != nil:
			t.Errorf("%q with token %q: %v", test.http, test.file, err)
		case test.want != "" && (err == nil || !strings.HasPrefix(err.Error(), test.want)):
			t.Errorf("%q with token %q: %v, want %s", test.http, test.file, err, test.want)
		}
	}
}

func TestAVariableThatMeansNothingIsFound(t *testing.T) {
	setEnvironment(t, map[string]string{"BULKMAIL_RELAY": "smtp://a", "BULKMAIL_LISTEN": "127.0.0.1:0", "BULKMAIL_": "x"})
	got := map[string]bool{}
	for _, name := range unknownVariables() {
		got[name] = true
	}
	if diff := cmp.Diff(map[string]bool{"BULKMAIL_RELAY": true, "BULKMAIL_": true}, got); diff != "" {
		t.Error(diff)
	}
}

func TestTheHelpNamesEveryVariable(t *testing.T) {
	t.Parallel()
	help := environment()
	for field := range reflect.TypeFor[config]().Fields() {
		if name := prefix + "_" + field.Tag.Get("envconfig"); !strings.Contains(help, "  "+name+" ") || field.Tag.Get("desc") == "" {
			t.Errorf("%s is not described", name)
		}
	}
}
