package escape_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"bulkmail/envelope/escape"
)

func ExampleCell() {
	fmt.Println(escape.Cell("=cmd|' /C calc'!A0"))
	fmt.Println(escape.Cell("550 5.1.1 unknown"))
	// Output:
	// '=cmd|' /C calc'!A0
	// 550 5.1.1 unknown
}

func ExampleTerminal() {
	fmt.Println(escape.Terminal("550 \x1b[2Jnothing \u202eto see"))
	// Output: 550 \x1b[2Jnothing \u202eto see
}

func TestACellIsNoFormula(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1+1", "'=1", "''=1"} {
		cell := escape.Cell(text)
		if cell != "'"+text {
			t.Errorf("%q became %q", text, cell)
		}
		if back := escape.CellText(cell); back != text {
			t.Errorf("%q came back as %q", text, back)
		}
	}
	for _, text := range []string{"", "'", "''", "ann@example.net", "O'Neil", "'t Hooft", "550 -1", "ü"} {
		if cell := escape.Cell(text); cell != text {
			t.Errorf("%q became %q", text, cell)
		}
	}
}

func FuzzCell(f *testing.F) {
	for _, s := range []string{"", "=", "'=", "''", "'a", "\xff="} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		cell := escape.Cell(text)
		if cell != "" && strings.ContainsAny(cell[:1], "=+-@\t\r\n") {
			t.Errorf("%q became %q", text, cell)
		}
		if back := escape.CellText(cell); back != text {
			t.Errorf("%q came back as %q", text, back)
		}
	})
}

func TestATerminalShowsWhatIsThere(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"": "",
		"jörg@bücher.example 用户 नमस्ते": "jörg@bücher.example 用户 नमस्ते",
		"می\u200cخواهم":                 "می\u200cخواهم",
		"a\nb\r\tc":                     `a\nb\r\tc`,
		"\x1b]0;title\a":                `\x1b]0;title\x07`,
		"\u009b2J":                      `\u009b2J`,
		"\x9b2J":                        `\x9b2J`,
		"\u2066a\u2069\u200f\u061c":     `\u2066a\u2069\u200f\u061c`,
		"a\U000e0041":                   `a\U000e0041`,
		"\u2028":                        `\u2028`,
		"\ufffd":                        "\ufffd",
	} {
		if got := escape.Terminal(text); got != want {
			t.Errorf("%q became %q, want %q", text, got, want)
		}
	}
}

func FuzzTerminal(f *testing.F) {
	for _, s := range []string{"", "\x1b[2J", "\u202e", "\xff\u009b", "ok"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got := escape.Terminal(text)
		if !utf8.ValidString(got) {
			t.Errorf("%q became %q, which is not UTF-8", text, got)
		}
		for _, r := range got {
			if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) {
				t.Errorf("%q became %q", text, got)
			}
		}
	})
}

func TestJSONOnATerminalMeansTheSameAndDoesNothing(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "plain", "J\u00f6rg\u200d", "a\u001b\u007f\u009b31m\u202eb\u2028", "tag \U000e0041", "quote \" \\ <b>\n"} {
		encoded, err := json.Marshal(map[string]string{"text": text})
		if err != nil {
			t.Fatal(err)
		}
		safe := escape.JSON(append(encoded, '\n'))
		var back map[string]string
		if err := json.Unmarshal(safe, &back); err != nil || back["text"] != text {
			t.Errorf("%q becomes %s, which means %q, %v", text, safe, back["text"], err)
		}
		if shown := strings.TrimSuffix(string(safe), "\n"); escape.Terminal(shown) != shown {
			t.Errorf("%q becomes %q", text, safe)
		}
	}
	if got := string(escape.JSON([]byte("{\n\t\"a\": 1}"))); got != "{\n\t\"a\": 1}" {
		t.Errorf("indented JSON becomes %s", got)
	}
}
