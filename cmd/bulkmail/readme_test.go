package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"bulkmail/envelope"
	relayconfig "bulkmail/relay/config"
	"bulkmail/subjects"
)

// fence is a fenced block of a Markdown file.
type fence struct {
	language string
	line     int // of its first line
	lines    []string
}

func fences(markdown string) []fence {
	var all []fence
	open := false
	for i, line := range strings.Split(markdown, "\n") {
		language, mark := strings.CutPrefix(strings.TrimSpace(line), "```")
		switch {
		case mark && !open:
			all = append(all, fence{language: language, line: i + 2})
			open = true
		case mark:
			open = false
		case open:
			all[len(all)-1].lines = append(all[len(all)-1].lines, line)
		}
	}
	return all
}

// A commandLine is a simple command of a shell.
type commandLine struct {
	env  map[string]string
	args []string
}

// commandLines reads lines of a shell as far as examples need it: quotes, a
// backslash at the end of a line, assignments in front, and what separates
// commands.
func commandLines(lines []string) ([]commandLine, error) {
	text := strings.ReplaceAll(strings.Join(lines, "\n")+"\n", "\\\n", " ")
	var all []commandLine
	var word strings.Builder
	inWord := false
	current := commandLine{env: map[string]string{}}
	endWord := func() {
		if !inWord {
			return
		}
		key, value, assigns := strings.Cut(word.String(), "=")
		if assigns && len(current.args) == 0 && regexp.MustCompile(`^[A-Z_][A-Z0-9_]*$`).MatchString(key) {
			current.env[key] = value
		} else {
			current.args = append(current.args, word.String())
		}
		word.Reset()
		inWord = false
	}
	for len(text) > 0 {
		c := text[0]
		text = text[1:]
		switch c {
		case '\'', '"':
			quoted, rest, ok := strings.Cut(text, string(c))
			if !ok {
				return nil, fmt.Errorf("a quote is not closed: %s", text)
			}
			word.WriteString(quoted)
			inWord, text = true, rest
		case ' ', '\t':
			endWord()
		case '#':
			if inWord {
				word.WriteByte(c)
				continue
			}
			_, text, _ = strings.Cut(text, "\n")
			text = "\n" + text
		case '>', '<':
			endWord()
			text = strings.TrimLeft(text, " >")
			text = text[strings.IndexAny(text, " \n|&;"):]
		case '\n', '|', '&', ';':
			endWord()
			if len(current.args) > 0 || len(current.env) > 0 {
				all = append(all, current)
			}
			current = commandLine{env: map[string]string{}}
		default:
			word.WriteByte(c)
			inWord = true
		}
	}
	return all, nil
}

// bulkmailArgs are the arguments of bulkmail, if the command runs it.
func (c commandLine) bulkmailArgs() (args []string, ok bool) {
	switch {
	case len(c.args) > 0 && c.args[0] == "$": // a prompt
		c.args = c.args[1:]
		return c.bulkmailArgs()
	case len(c.args) > 0 && c.args[0] == "bulkmail":
		return c.args[1:], true
	case len(c.args) > 2 && slices.Equal(c.args[:3], []string{"go", "run", "./cmd/bulkmail"}):
		return c.args[3:], true
	}
	return nil, false
}

// checkUsage tells what bulkmail would say of arguments, short of running them.
func checkUsage(args []string) error {
	root := newRoot(&streams{strings.NewReader(""), io.Discard, io.Discard})
	cmd, rest, err := root.Find(args)
	if err != nil {
		return err
	}
	cmd.InitDefaultHelpFlag()
	if err := cmd.ParseFlags(rest); err != nil {
		return err
	}
	if help, err := cmd.Flags().GetBool("help"); err == nil && help {
		return nil
	}
	if err := cmd.ValidateArgs(cmd.Flags().Args()); err != nil {
		return err
	}
	return cmd.ValidateRequiredFlags()
}

func knownVariables() map[string]bool {
	known := map[string]bool{"BULKMAIL_REQUIRE_PEERS": true} // of the tests
	for field := range reflect.TypeFor[config]().Fields() {
		known[prefix+"_"+field.Tag.Get("envconfig")] = true
	}
	return known
}

func TestTheReadmeShowsCommandsThatExist(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for _, block := range fences(string(text)) {
		at := func(format string, args ...any) {
			t.Errorf("README.md, block at line %d: %s", block.line, fmt.Sprintf(format, args...))
		}
		switch block.language {
		case "yaml":
			seen["relay file"]++
			if _, err := relayconfig.Load("", "relays.yaml", relayOptions(block.lines)); err != nil {
				at("%v", err)
			}
			continue
		case "json":
			seen["journal entry"]++
			var e subjects.Entry
			strict := json.NewDecoder(strings.NewReader(strings.Join(block.lines, "\n")))
			strict.DisallowUnknownFields()
			if err := strict.Decode(&e); err != nil || e.Event == "" || len(e.Results) == 0 {
				at("no journal entry with results: %v", err)
			}
			continue
		case "console":
			block.lines = slices.DeleteFunc(block.lines, func(line string) bool { return !strings.HasPrefix(line, "$ ") })
		case "sh":
		default:
			continue
		}
		commands, err := commandLines(block.lines)
		if err != nil {
			at("%v", err)
		}
		for _, c := range commands {
			checkCommand(c, seen, at)
		}
	}
	for _, want := range []string{"bulkmail", "batch", "relays", "relay file", "journal entry"} {
		if seen[want] == 0 {
			t.Errorf("README.md shows no %s, or this test does not find it", want)
		}
	}
	known := knownVariables()
	for _, name := range regexp.MustCompile(`BULKMAIL_[A-Z0-9_]*[A-Z0-9]`).FindAllString(string(text), -1) {
		if !known[name] && !slices.Contains([]string{"BULKMAIL_BATCHES", "BULKMAIL_OUTCOMES", "BULKMAIL_DEAD", "BULKMAIL_SUPPRESSIONS", "BULKMAIL_TALLY", "BULKMAIL_FEEDBACK"}, name) { // streams
			t.Errorf("README.md names %s, which means nothing", name)
		}
	}
}

func TestTheReadmesBackupIsTried(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	script, err := os.ReadFile("testdata/script/backup.txtar")
	if err != nil {
		t.Fatal(err)
	}
	tried := 0
	for _, block := range fences(string(text)) {
		for _, line := range block.lines {
			if strings.HasPrefix(line, "nats backup") {
				tried++
				if !strings.Contains(string(script), "\nexec "+line+"\n") {
					t.Errorf("README.md says %q, which no script does", line)
				}
			}
		}
	}
	if tried != 2 {
		t.Errorf("README.md has %d commands for backups, not a backup and a restore", tried)
	}
}

// checkCommand checks one command of the README, and its environment.
func checkCommand(c commandLine, seen map[string]int, at func(string, ...any)) {
	if urls, ok := c.env["BULKMAIL_RELAYS"]; ok {
		seen["relays"]++
		if _, err := relayconfig.Load(urls, "", relayOptions(nil)); err != nil {
			at("%v", err)
		}
	}
	args, ours := c.bulkmailArgs()
	if ours {
		seen["bulkmail"]++
		if err := checkUsage(args); err != nil {
			at("bulkmail %s: %v", strings.Join(args, " "), err)
		}
	}
	if len(c.args) == 4 && slices.Equal(c.args[:2], []string{"nats", "pub"}) {
		seen["batch"]++
		if _, err := envelope.Decode([]byte(c.args[3])); err != nil {
			at("%s: %v", c.args[3], err)
		}
	}
}

// relayOptions are of a world with one file and a name.
func relayOptions(file []string) relayconfig.Options {
	return relayconfig.Options{
		Hostname: func() (string, error) { return "client.test", nil },
		ReadFile: func(string) ([]byte, error) { return []byte(strings.Join(file, "\n")), nil },
	}
}

// What a check finds is worth no more than what it would find.
func TestTheReadmeCheckFindsMistakes(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"bulkmail demo":                                     "",
		"go run ./cmd/bulkmail demo":                        "",
		"$ bulkmail demo # to look at":                      "",
		"X=1 bulkmail demo > out.txt":                       "",
		"bulkmail":                                          "",
		"bulkmail worker --help":                            "",
		"bulkmail publish --from '' --message m l.txt":      "",
		"bulkmail publish \\\n --from a@b --message m -":    "",
		"bulkmail demonstrate":                              "unknown command",
		"bulkmail demo --fast":                              "unknown flag: --fast",
		"bulkmail demo now":                                 "unknown command",
		"bulkmail publish --from a@b l.txt":                 `required flag(s) "message" not set`,
		"bulkmail publish --batch-size many --from a l.txt": "invalid argument",
		"bulkmail outcomes":                                 "accepts 1 arg(s), received 0",
		"cat list.txt | bulkmail outcomes a b":              "accepts 1 arg(s), received 2",
		"bulkmail sink & bulkmail wrker":                    "unknown command",
	} {
		commands, err := commandLines(strings.Split(text, "\n"))
		if err != nil {
			t.Errorf("%s: %v", text, err)
		}
		found := 0
		var problems []string
		for _, c := range commands {
			if args, ok := c.bulkmailArgs(); ok {
				found++
				if err := checkUsage(args); err != nil {
					problems = append(problems, err.Error())
				}
			}
		}
		got := strings.Join(problems, "; ")
		if found == 0 || (want == "") != (got == "") || !strings.Contains(got, want) {
			t.Errorf("%s: found %d commands and says %q, want %q", text, found, got, want)
		}
	}
}

func TestEveryCommandHasAnExampleThatWorks(t *testing.T) {
	t.Parallel()
	known := knownVariables()
	var visit func(cmd *cobra.Command)
	visit = func(cmd *cobra.Command) {
		if cmd.Short == "" || strings.HasSuffix(cmd.Short, ".") {
			t.Errorf("%s: the short help is %q", cmd.CommandPath(), cmd.Short)
		}
		commands, err := commandLines(strings.Split(cmd.Example, "\n"))
		if err != nil {
			t.Errorf("%s: %v", cmd.CommandPath(), err)
		}
		own := 0
		for _, c := range commands {
			for name := range c.env {
				if !known[name] {
					t.Errorf("%s: example with %s, which means nothing", cmd.CommandPath(), name)
				}
			}
			args, ok := c.bulkmailArgs()
			if !ok {
				continue
			}
			if strings.HasPrefix("bulkmail "+strings.Join(args, " ")+" ", cmd.CommandPath()+" ") {
				own++
			}
			if err := checkUsage(args); err != nil {
				t.Errorf("%s: example bulkmail %s: %v", cmd.CommandPath(), strings.Join(args, " "), err)
			}
		}
		if own == 0 {
			t.Errorf("%s has no example", cmd.CommandPath())
		}
		for _, sub := range cmd.Commands() {
			visit(sub)
		}
	}
	visit(newRoot(discard()))
}
