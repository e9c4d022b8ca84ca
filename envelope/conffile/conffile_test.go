package conffile_test

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"bulkmail/envelope/conffile"
)

// rep is s again and again, n octets of it.
func rep(s string, n int) string { return strings.Repeat(s, n/len(s)) }

const (
	tooBig   = "larger than 1 MiB"
	tooMany  = "more than 60000 lines, keys and values"
	tooDeep  = "nested more than 32 levels deep"
	manyKeys = "more than 1000 keys"
	manyRefs = "more than 5000 anchors, aliases and tags"
)

// numbered is a mapping of so many keys, each after indent.
func numbered(keys int, indent string) string {
	var b strings.Builder
	for i := range keys {
		b.WriteString(indent + "k" + strconv.Itoa(i) + ": v\n")
	}
	return b.String()
}

func staircase(steps int) string {
	var b strings.Builder
	for i := range steps {
		b.WriteString(strings.Repeat(" ", i) + "a:\n")
	}
	return b.String()
}

// What a parser needs for a file has to do with what is in it, not with its size: a
// few hundred kilobytes took 24 GB, or minutes.
func TestAFileThatIsMadeToDoHarmCostsALine(t *testing.T) {
	for _, c := range []struct{ name, text, refused string }{
		{"a mebibyte and one", rep("#", conffile.MaxSize+1), tooBig},
		{"500,000 brackets", rep("[", 500_000), tooMany},
		{"lines", rep("- a\n", conffile.MaxSize), tooMany},
		{"aliases", "a: &a b\nr: [" + rep("*a,", conffile.MaxSize-20) + "]", tooMany},
		{"brackets", rep("[", 5_000), tooDeep},
		{"braces", rep("{a: ", 5_000), tooDeep},
		{"brackets that close", rep("[", 5_000) + rep("]", 5_000), tooDeep},
		{"brackets over lines", rep("[\n", 5_000), tooDeep},
		{"closing brackets in quotes", rep(`["]",`, 5_000), tooDeep},
		{"closing brackets in what looks like quotes", "[" + rep("b 'c, [", 5_000), tooDeep},
		{"brackets behind quotes over two lines", rep("[\"a\n # \",", 5_000), tooDeep},
		{"dashes", rep("- ", 5_000), tooDeep},
		{"question marks", rep("? ", 5_000), tooDeep},
		{"a staircase", staircase(100), tooDeep},
		{"dashes beneath keys", strings.ReplaceAll(staircase(34), "a:", "- a:"), tooDeep},
		{"keys", numbered(1_001, ""), manyKeys},
		{"one key again and again", rep("k: v\n", 10_000), manyKeys},
		{"keys with question marks", rep("? a\n", 10_000), manyKeys},
		{"anchors", rep("&a ", 20_000), manyRefs},
		{"tags", rep("! ", 20_000), manyRefs},
	} {
		t.Run(c.name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := conffile.ParseYAML([]byte(c.text))
			runtime.ReadMemStats(&after)
			if err == nil || !strings.Contains(err.Error(), c.refused) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want %s, in one line", err, c.refused)
			}
			if allocated := (after.TotalAlloc - before.TotalAlloc) >> 20; allocated > 64 {
				t.Errorf("allocated %d MB", allocated)
			}
		})
	}
}

func TestWhatIsWithinTheBoundsIsParsed(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"a key and 31 brackets":         "a: " + rep("[", 31) + rep("]", 31),
		"32 steps":                      staircase(32),
		"1,000 keys":                    numbered(1_000, "  "),
		"many lists of their own":       rep("- [[a], [b]]\n", 5_000),
		"brackets in texts":             "a: \"" + rep("[", 100) + "\"\nb: '" + rep("{", 100) + "'\nc: x" + rep("[", 100) + "\nd: |\n  " + rep("[", 100) + "\n# " + rep("[", 100) + "\n",
		"a sequence at its key's place": "a:\n- b:\n  - c\nd:\n- e\n",
		"relays":                        "relays:\n" + rep("- host: mx.example.com\n  max_messages: 5\n", 10_000),
		"nothing":                       "",
	} {
		if _, err := conffile.ParseYAML([]byte(text)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAFileOfAMebibyteIsRead(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	for size, want := range map[int]error{0: nil, conffile.MaxSize: nil, conffile.MaxSize + 1: conffile.ErrTooLarge} {
		if err := os.WriteFile(file, make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
		data, err := conffile.Read(file)
		if !errors.Is(err, want) || err == nil && len(data) != size {
			t.Errorf("%d: %d, %v", size, len(data), err)
		}
	}
	if _, err := conffile.Read("/dev/zero"); !errors.Is(err, conffile.ErrTooLarge) {
		t.Error(err)
	}
}

func TestAKeyThatNobodyKnowsIsNamedWithItsLineAndNothingOfTheFile(t *testing.T) {
	t.Parallel()
	var v struct{ Keys []string }
	err := conffile.Unmarshal([]byte("keys: [a]\nsecret: hunter2\n"), &v)
	if err == nil || !strings.Contains(err.Error(), "line 2: ") || strings.Contains(err.Error(), "hunter2") {
		t.Error(err)
	}
	if err := conffile.Unmarshal([]byte("keys: [a]\n"), &v); err != nil || len(v.Keys) != 1 {
		t.Error(v, err)
	}
}
