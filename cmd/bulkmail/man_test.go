package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	relayconfig "bulkmail/relay/config"
)

// pages writes the manual and returns its pages by file name.
func pages(t *testing.T, dir string) map[string]string {
	t.Helper()
	root := newRoot(discard())
	if err := writePages(root, dir, time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]string)
	for _, file := range files {
		page, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all[filepath.Base(file)] = string(page)
	}
	return all
}

func TestEveryCommandHasAPageThatSaysHowItEnds(t *testing.T) {
	t.Parallel()
	all := pages(t, t.TempDir())
	commands := 0
	var visit func(cmd *cobra.Command)
	visit = func(cmd *cobra.Command) {
		commands++
		name := strings.ReplaceAll(cmd.CommandPath(), " ", "-")
		page := all[name+".1"]
		for _, want := range []string{
			`.TH "` + strings.ToUpper(name) + `" "1" "Nov 2026" "bulkmail" "bulkmail"`,
			".SH NAME\n" + name, ".SH SYNOPSIS\n", ".SH DESCRIPTION\n", ".SH OPTIONS\n.TP\n",
			".SH EXIT STATUS\n.TP\n\\fB0\\fP\n", "\\fB1\\fP\n", "\\fB2\\fP\n", ".SH ENVIRONMENT\n", ".SH SEE ALSO\n",
		} {
			if !strings.Contains(page, want) {
				t.Errorf("%s.1 is without %q", name, want)
			}
		}
		if cmd.Example != "" && !strings.Contains(page, ".SH EXAMPLE\n") {
			t.Errorf("%s.1 is without its example", name)
		}
		for _, sub := range cmd.Commands() {
			if sub.IsAvailableCommand() {
				visit(sub)
			}
		}
	}
	root := newRoot(discard())
	visit(root)
	if len(all) != commands {
		t.Errorf("%d pages for %d commands", len(all), commands)
	}
}

func TestTheManualNamesEveryVariableFileAndKey(t *testing.T) {
	t.Parallel()
	all := pages(t, t.TempDir())
	for _, page := range []string{"bulkmail.1", "bulkmail-worker.1"} {
		if !strings.Contains(all[page], ".SH FILES\n") {
			t.Errorf("%s has no files", page)
		}
		for field := range reflect.TypeFor[config]().Fields() {
			name := "\n\\fB" + prefix + "_" + field.Tag.Get("envconfig") + "\\fP\n"
			if n := strings.Count(all[page], name); n != 1 {
				t.Errorf("%s has %s %d times", page, strings.TrimSpace(name), n)
			}
		}
	}
	for _, key := range relayconfig.Keys() {
		if n := strings.Count(all["bulkmail-relays.1"], "\n\\fB"+key.Name+"\\fP\n"); n != 1 {
			t.Errorf("bulkmail-relays.1 has %s %d times", key.Name, n)
		}
	}
}

// The same as what Debian's lintian asks of a page.
func TestManFindsNothingWrongWithThePages(t *testing.T) {
	t.Parallel()
	need(t, "man")
	need(t, "groff")
	dir := t.TempDir()
	for name := range pages(t, dir) {
		man := exec.CommandContext(t.Context(), "man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", filepath.Join(dir, name))
		man.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "MANROFFSEQ=", "MANWIDTH=80")
		var out, problems bytes.Buffer
		man.Stdout, man.Stderr = &out, &problems
		if err := man.Run(); err != nil || problems.Len() > 0 {
			t.Errorf("%s: %v %s", name, err, &problems)
		}
		if out.Len() == 0 {
			t.Errorf("%s: man printed nothing", name)
		}
	}
}

func TestManReadsThePagesAsTheyAreMeant(t *testing.T) {
	t.Parallel()
	need(t, "man")
	dir := t.TempDir()
	pages(t, dir)
	for page, want := range map[string][]string{
		"bulkmail-publish.1": {
			`LIST is a file of addresses, one a line ("Ann <ann@example.net>" too, # begins`,
			"--batch-size int", "recipients a batch at most (1000)",
			"bulkmail publish --from news@example.com --message hello.eml --wait list.txt",
		},
		"bulkmail-relays.1":          {"max_messages_while_awake messages by all workers together before the relay sleeps"},
		"bulkmail-completion-bash.1": {"source <(bulkmail completion bash)"},
	} {
		man := exec.CommandContext(t.Context(), "man", "-l", "-P", "cat", filepath.Join(dir, page))
		man.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "MANROFFSEQ=", "MANWIDTH=100", "MAN_KEEP_FORMATTING=", "GROFF_NO_SGR=1")
		out, err := man.Output()
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range want {
			if !strings.Contains(strings.Join(strings.Fields(string(out)), " "), text) {
				t.Errorf("%s is without %q:\n%s", page, text, out)
			}
		}
	}
}

func TestPagesAreDatedByTheSourceNeverByTheClock(t *testing.T) {
	t.Parallel()
	if got, err := manDate("1700000000"); err != nil || got.Unix() != 1700000000 || got.Location() != time.UTC {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := manDate("yesterday"); err == nil || !strings.Contains(err.Error(), `SOURCE_DATE_EPOCH: "yesterday" is not seconds since 1970`) {
		t.Errorf("got %v", err)
	}
	first, err := manDate("")
	if err != nil {
		t.Fatal(err)
	}
	if second, err := manDate(""); err != nil || !first.Equal(second) {
		t.Errorf("first %v, then %v, %v", first, second, err)
	}
}

// need skips a test whose program is not there, or fails it where programs are
// required.
func need(t *testing.T, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		if os.Getenv("BULKMAIL_REQUIRE_PEERS") != "" {
			t.Fatalf("%s is required here: %v", program, err)
		}
		t.Skipf("%s is not installed", program)
	}
}
