package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
	"github.com/spf13/pflag"

	relayconfig "bulkmail/relay/config"
)

func newMan(s *streams) *cobra.Command {
	return &cobra.Command{
		Use:   "man DIR",
		Short: "Write the manual pages into a folder",
		Long: `Write a manual page of section 1 for each command into a folder, which is made if
it is missing. Pages of the same program are the same to the last octet: their
date is that of the commit it was built from, or SOURCE_DATE_EPOCH.`,
		Example: `  bulkmail man /usr/local/share/man/man1`,
		Args:    cobra.ExactArgs(1),
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return nil, cobra.ShellCompDirectiveFilterDirs
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			date, err := manDate(os.Getenv("SOURCE_DATE_EPOCH"))
			if err != nil {
				return usage(cmd, err)
			}
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return err
			}
			return writePages(newRoot(s), args[0], date)
		},
	}
}

// manDate is SOURCE_DATE_EPOCH, else the time of the commit that the program
// was built from, else the beginning of 1970: never the time of the call.
func manDate(epoch string) (time.Time, error) {
	if epoch != "" {
		seconds, err := strconv.ParseInt(epoch, 10, 64)
		if err != nil {
			return time.Time{}, fmt.Errorf("SOURCE_DATE_EPOCH: %q is not seconds since 1970", epoch)
		}
		return time.Unix(seconds, 0).UTC(), nil
	}
	if t, err := time.Parse(time.RFC3339, thisBuild().Date); err == nil {
		return t.UTC(), nil
	}
	return time.Unix(0, 0).UTC(), nil
}

// writePages writes the pages of cmd and of all below it.
func writePages(cmd *cobra.Command, dir string, date time.Time) error {
	var problems []error
	for _, sub := range cmd.Commands() {
		if sub.IsAvailableCommand() {
			problems = append(problems, writePages(sub, dir, date))
		}
	}
	page, err := manPage(cmd, date)
	if err == nil {
		name := strings.ReplaceAll(cmd.CommandPath(), " ", "-") + ".1"
		err = os.WriteFile(filepath.Join(dir, name), page, 0o644)
	}
	return errors.Join(append(problems, err)...)
}

// manPage is the page of a command. It changes the command's help texts.
func manPage(cmd *cobra.Command, date time.Time) ([]byte, error) {
	cmd.DisableAutoGenTag = true
	cmd.InitDefaultHelpFlag()
	// What the help lists in columns has a section of its own here.
	text := strings.ReplaceAll(cmd.Long, "\nThe environment:\n"+environment(), "")
	text = strings.ReplaceAll(text, "\nKeys of a relay, in a URL, in YAML or in a Mail::Bulkmail server file:\n"+relayKeys(), "")
	cmd.Long = markdown(text)
	sections := manSections(cmd)
	if cmd.HasAvailableFlags() {
		cmd.Use += " [flags]"
		cmd.Flags().VisitAll(func(f *pflag.Flag) { f.Hidden = true }) // they are in sections
	}
	var page bytes.Buffer
	if err := doc.GenMan(cmd, &doc.GenManHeader{Section: "1", Date: &date, Source: "bulkmail", Manual: "bulkmail"}, &page); err != nil {
		return nil, err
	}
	before, after, found := cutBefore(page.String(), ".SH EXAMPLE\n", ".SH SEE ALSO\n")
	if !found {
		return nil, fmt.Errorf("%s: nothing stands behind the description", cmd.CommandPath())
	}
	return []byte(before + sections + after), nil
}

// cutBefore cuts s before the first of marks that is in it.
func cutBefore(s string, marks ...string) (before, after string, found bool) {
	for _, mark := range marks {
		if i := strings.Index(s, mark); i >= 0 {
			return s[:i], s[i:], true
		}
	}
	return s, "", false
}

// manSections are the sections that cobra does not make.
func manSections(cmd *cobra.Command) string {
	var b strings.Builder
	section := func(title string) { b.WriteString(".SH " + title + "\n") }
	item := func(name, text string) {
		fmt.Fprintf(&b, ".TP\n\\fB%s\\fP\n%s\n", escapeRoff(name), escapeRoff(text))
	}
	section("OPTIONS")
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if f.Hidden {
			return
		}
		value, text := pflag.UnquoteUsage(f)
		name := "--" + f.Name
		if f.Shorthand != "" {
			name = "-" + f.Shorthand + ", " + name
		}
		if value != "" {
			name += " " + value
		}
		standard := f.DefValue
		if slices.Contains([]string{"false", "0", "0s", "[]"}, standard) {
			standard = ""
		}
		item(name, withDefault(text, standard))
	})
	if cmd.CommandPath() == "bulkmail relays" {
		section("KEYS OF A RELAY")
		b.WriteString("In a URL, in YAML or in a Mail::Bulkmail server file.\n")
		for _, k := range relayconfig.Keys() {
			item(k.Name, withDefault(k.Doc, k.Default))
		}
	}
	section("EXIT STATUS")
	for _, status := range exitStatuses {
		item(strconv.Itoa(status.code), status.means)
	}
	switch cmd.CommandPath() {
	case "bulkmail", "bulkmail worker":
		section("ENVIRONMENT")
		for field := range reflect.TypeFor[config]().Fields() {
			item(prefix+"_"+field.Tag.Get("envconfig"), withDefault(field.Tag.Get("desc"), field.Tag.Get("default")))
		}
		section("FILES")
		item("./bulkmail-data", "what an embedded broker keeps: batches, outcomes, dead letters, messages, campaigns, counters of relays. BULKMAIL_DATA_DIR names another folder. One worker at a time has it, and holds a lock in it.")
		item("$BULKMAIL_RELAYS_FILE", "relays in YAML, or a Mail::Bulkmail server file. A worker reads it again when it changes, and on SIGHUP.")
		item("password_file, tls_ca, tls_cert, tls_key", "files that a relay's keys of these names name; conversation names one that is written to.")
	default:
		section("ENVIRONMENT")
		b.WriteString("See \\fBbulkmail\\fP(1).\n")
	}
	return b.String()
}

func withDefault(text, value string) string {
	if value == "" {
		return text
	}
	return text + " (" + value + ")"
}

// escapeRoff keeps text of one line from being taken for requests and escapes.
func escapeRoff(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(s)
	if strings.HasPrefix(s, ".") || strings.HasPrefix(s, "'") {
		s = `\&` + s
	}
	return s
}

// markdown makes a help text one in Markdown: what stands indented stays as it
// is, the rest is words.
func markdown(help string) string {
	lines := strings.Split(help, "\n")
	for i, line := range lines {
		switch {
		case strings.HasPrefix(line, "  "), strings.HasPrefix(line, "\t"):
			lines[i] = "    " + strings.TrimSpace(line)
		case strings.HasPrefix(line, "#### "): // cobra's own, in completion
			lines[i] = "**" + strings.TrimPrefix(line, "#### ") + "**"
		default:
			lines[i] = escapeMarkdown(line)
		}
	}
	return strings.Join(lines, "\n")
}

// escapeMarkdown keeps words from being taken for markup.
func escapeMarkdown(s string) string {
	return strings.NewReplacer(`\`, `\\`, "`", "\\`", "*", `\*`, "_", `\_`, "<", `\<`, ">", `\>`, "[", `\[`, "]", `\]`, "#", `\#`).Replace(s)
}
