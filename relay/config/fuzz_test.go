package config_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bulkmail/relay"
	"bulkmail/relay/config"

	"github.com/google/go-cmp/cmp"
)

// seeds adds the example files with one of the endings.
func seeds(f *testing.F, endings ...string) {
	f.Helper()
	for _, ending := range endings {
		for _, dir := range []string{examples, filepath.Join(examples, "broken")} {
			files, err := filepath.Glob(filepath.Join(dir, "*."+ending))
			if err != nil {
				f.Fatal(err)
			}
			for _, name := range files {
				data, err := os.ReadFile(name)
				if err != nil {
					f.Fatal(err)
				}
				f.Add(string(data))
			}
		}
	}
}

// sound checks what holds for every input: relays or problems, each problem a
// line, and relays that read back the same.
func sound(t *testing.T, relays []relay.Config, err error) {
	t.Helper()
	if err != nil {
		var problems config.Problems
		if relays != nil || !errors.As(err, &problems) || len(problems) == 0 {
			t.Fatalf("got %v and %v", relays, err)
		}
		for _, p := range problems {
			if p.Reason == "" || strings.ContainsAny(p.Error(), "\r\n\x00\x1b") {
				t.Fatalf("problem %q", p.Error())
			}
		}
		return
	}
	if len(relays) == 0 {
		t.Fatal("neither relays nor problems")
	}
	again, err := config.Load("", "again", onDisk(map[string]string{"again": string(config.YAML(relays))}))
	if err != nil {
		t.Fatalf("%v\n%s", err, config.YAML(relays))
	}
	type plain relay.Config
	for i := range relays {
		relays[i].Where, again[i].Where = "", ""
		// Halves of a pair that an explicit 0 switched off need not come back.
		if diff := cmp.Diff(plain(relays[i]), plain(again[i])); diff != "" {
			t.Fatalf("read back (-want +got):\n%s", diff)
		}
	}
}

func FuzzURLs(f *testing.F) {
	seeds(f, "urls")
	f.Fuzz(func(t *testing.T, urls string) {
		if strings.TrimSpace(urls) == "" {
			return
		}
		relays, err := config.Load(urls, "", onDisk(nil))
		sound(t, relays, err)
	})
}

func FuzzFile(f *testing.F) {
	seeds(f, "yaml", "txt", "conf")
	f.Fuzz(func(t *testing.T, text string) {
		// The file may name itself and nothing else.
		relays, err := config.Load("", "relays", onDisk(map[string]string{"relays": text}))
		sound(t, relays, err)
	})
}
