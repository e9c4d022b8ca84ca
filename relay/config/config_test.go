package config_test

import (
	"errors"
	"flag"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bulkmail/relay"
	"bulkmail/relay/config"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files anew")

const examples = "../../testdata/relays"

// quiet is a host that has a name and no user of its own, and files that are
// named as if the test stood beside them.
func quiet(dir string) config.Options {
	return config.Options{
		Hostname: func() (string, error) { return "worker.example.com", nil },
		Addrs:    func() ([]net.Addr, error) { return nil, nil },
		UID:      func() int { return 1000 },
		ReadFile: func(name string) ([]byte, error) { return os.ReadFile(filepath.Join(dir, name)) },
	}
}

// plainRelay is a relay that says nothing but its host.
func plainRelay(host string) relay.Config {
	return relay.Config{
		Name: host, Kind: "smtp", Host: host, Port: 25, Domain: "worker.example.com",
		Tries: 5, MaxConnectionAttempts: 5, WorthlessFor: time.Minute,
		EnvelopeLimit: 100, EnvelopeDomains: 1, TalkAttempts: 1, Connections: 4,
		TLS: "opportunistic", Overlap: "auto", DKIM: relay.On, ReturnPath: relay.On, MaxMessagesPerRobin: relay.None,
	}
}

func with(c relay.Config, change func(*relay.Config)) relay.Config {
	change(&c)
	return c
}

// same compares relays field by field, which their redacted String would hide.
func same(t *testing.T, got, want []relay.Config) {
	t.Helper()
	type plain relay.Config
	convert := func(in []relay.Config) []plain {
		out := make([]plain, len(in))
		for i, c := range in {
			out[i] = plain(c)
		}
		return out
	}
	if diff := cmp.Diff(convert(want), convert(got)); diff != "" {
		t.Errorf("relays (-want +got):\n%s", diff)
	}
}

func TestTheURLsOfTheReadmeAreRead(t *testing.T) {
	t.Parallel()
	urls, err := os.ReadFile(filepath.Join(examples, "relays.urls"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := config.Load(string(urls), "", quiet(""))
	if err != nil {
		t.Fatal(err)
	}
	same(t, got, []relay.Config{
		with(plainRelay("smtp1.example.net"), func(c *relay.Config) {
			c.Name, c.Port, c.User, c.Password = "primary", 587, "news", "pa/ss"
			c.MaxRate = relay.Rate{Messages: 14, Per: time.Second}
			c.TLS = "required"
			c.MaxMessagesPerRobin = 500
			c.Where = "BULKMAIL_RELAYS, URL 1"
		}),
		with(plainRelay("smtp2.example.net"), func(c *relay.Config) {
			c.MaxMessages, c.MaxMessagesWindow = 10000, 24*time.Hour
			c.MaxMessagesPerRobin = 500
			c.Where = "BULKMAIL_RELAYS, URL 2"
		}),
	})
}

func TestTheYAMLExampleIsRead(t *testing.T) {
	t.Parallel()
	got, err := config.Load("", "relays.yaml", quiet(examples))
	if err != nil {
		t.Fatal(err)
	}
	common := func(host string) relay.Config {
		return with(plainRelay(host), func(c *relay.Config) {
			c.Domain, c.TimeOut, c.MaxMessagesPerRobin = "news.example.com", 5*time.Minute, 500
		})
	}
	same(t, got, []relay.Config{
		with(common("smtp1.example.net"), func(c *relay.Config) {
			c.Name, c.Port, c.User, c.PasswordFile = "primary", 587, "news@example.com", "primary.password"
			c.MaxRate, c.Connections = relay.Rate{Messages: 14, Per: time.Second}, 8
			c.TLS = "required"
			c.Where = "relays.yaml:10"
		}),
		with(common("smtp2.example.net"), func(c *relay.Config) {
			c.Name, c.MaxMessages, c.MaxMessagesWindow, c.MaxMessagesPerRobin = "small", 10000, 24*time.Hour, 100
			c.Where = "relays.yaml:18"
		}),
		with(common("smtp3.example.net"), func(c *relay.Config) {
			c.Name, c.MaxMessagesWhileAwake, c.SleepLength = "tired", 5000, 10*time.Minute
			c.Where = "relays.yaml:24"
		}),
		with(common("2001:db8::25"), func(c *relay.Config) {
			c.Name, c.Kind, c.Port, c.Connections = "local", "lmtp", 2424, 1
			c.Where = "relays.yaml:30"
		}),
	})
}

func TestAServerFileOfTheSeedIsReadAsItStands(t *testing.T) {
	t.Parallel()
	got, err := config.Load("", "server_file.txt", quiet(examples))
	if err != nil {
		t.Fatal(err)
	}
	same(t, got, []relay.Config{
		with(plainRelay("smtp1.example.net"), func(c *relay.Config) {
			c.MaxMessagesPerRobin, c.Where = 1000, "server_file.txt:4"
		}),
		with(plainRelay("smtp2.example.net"), func(c *relay.Config) {
			c.MaxMessagesPerRobin, c.Where = 1000, "server_file.txt:11"
		}),
		with(plainRelay("smtp3.example.net"), func(c *relay.Config) {
			c.Name, c.Port, c.Tries, c.EnvelopeLimit = "smtp3.example.net:2525", 2525, 3, 200
			c.MaxMessagesPerRobin, c.Where = 250, "server_file.txt:18"
		}),
	})
}

func TestAMasterFileGivesItsServerFileTheDefaults(t *testing.T) {
	t.Parallel()
	got, err := config.Load("", "bulkmail.conf", quiet(examples))
	if err != nil {
		t.Fatal(err)
	}
	common := func(host string) relay.Config {
		return with(plainRelay(host), func(c *relay.Config) {
			c.Domain, c.TimeOut, c.TalkAttempts = "example.com", 3000*time.Second, 5
			c.MaxConnectionAttempts, c.MaxMessagesPerRobin = 7, 1000
			c.SleepLength = 10 * time.Second
		})
	}
	same(t, got, []relay.Config{
		with(common("smtp1.example.net"), func(c *relay.Config) { c.Where = "server_file.txt:4" }),
		with(common("smtp2.example.net"), func(c *relay.Config) { c.Where = "server_file.txt:11" }),
		with(common("smtp3.example.net"), func(c *relay.Config) {
			c.Name, c.Port, c.Tries = "smtp3.example.net:2525", 2525, 3
			c.EnvelopeLimit, c.MaxMessagesPerRobin = 200, 250
			c.Where = "server_file.txt:18"
		}),
	})
}

// Each broken file has its golden file with all that is wrong with it.
func TestBrokenFilesAreReportedInFull(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(examples, "broken")
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	tried := 0
	for _, f := range files {
		name := f.Name()
		if filepath.Ext(name) == ".golden" {
			continue
		}
		tried++
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			urls, file := "", name
			if filepath.Ext(name) == ".urls" {
				data, err := os.ReadFile(filepath.Join(dir, name))
				if err != nil {
					t.Fatal(err)
				}
				urls, file = string(data), ""
			}
			got, err := config.Load(urls, file, quiet(dir))
			if err == nil {
				t.Fatal("no problem found")
			}
			if got != nil {
				t.Error("relays beside problems: a worker might run with half of them")
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Error("the password is in the message")
			}
			golden := filepath.Join(dir, name+".golden")
			if *update {
				if err := os.WriteFile(golden, []byte(err.Error()+"\n"), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, readErr := os.ReadFile(golden)
			if readErr != nil {
				t.Fatal(readErr)
			}
			if diff := cmp.Diff(string(want), err.Error()+"\n"); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
		})
	}
	if tried == 0 {
		t.Error("no broken files found")
	}
}

func TestNothingConfiguredSaysWhatToSet(t *testing.T) {
	t.Parallel()
	_, err := config.Load(" \t", "", config.Options{})
	problem, ok := errors.AsType[*config.Problem](err)
	if !ok || problem.Key != "BULKMAIL_RELAYS" || !strings.Contains(problem.Reason, "BULKMAIL_RELAYS_FILE") {
		t.Errorf("got %v", err)
	}
}

func TestTheDummyExampleWritesBesideItsFile(t *testing.T) {
	t.Parallel()
	got, err := config.Load("", filepath.Join(examples, "dummy.conf"), config.Options{Hostname: quiet("").Hostname})
	if err != nil {
		t.Fatal(err)
	}
	if c := got[0]; c.Kind != relay.KindDummy || c.Name != "dummy:dummy.file" || c.Path != filepath.Join(examples, "dummy.file") {
		t.Errorf("got %v, path %s", c, c.Path)
	}
}
