package letter

import (
	"bytes"
	"encoding/json"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-message"
	_ "github.com/emersion/go-message/charset" // charsets beyond UTF-8

	"bulkmail/envelope/keys"
)

func testKey(t testing.TB) *keys.Key {
	t.Helper()
	k, err := keys.New("k1", "iNJ8HBYQ5E8hKfpGvEZ0CDMh0mPrxUzMpSX9fOHPYb4")
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// batch is a batch of the campaign may.
func batch(t testing.TB, data string) *Batch {
	return &Batch{Campaign: "may", ID: "0001", Date: time.Date(2026, 5, 1, 8, 30, 0, 0, time.UTC), Key: testKey(t), Data: data}
}

func compile(t testing.TB, raw string) *Template {
	t.Helper()
	tp, err := Compile(raw, Options{Sender: "bounce@example.com"})
	if err != nil {
		t.Fatal(err)
	}
	return tp
}

// letterOf is the letter of ann@example.net.
func letterOf(t testing.TB, raw, data string, sevenBit bool) (Letter, error) {
	t.Helper()
	var r Renderer
	return r.Render(compile(t, raw), batch(t, ""), &Recipient{To: "ann@example.net", Name: "Ann Lee", Data: data}, sevenBit)
}

// wireOf is letterOf where it must succeed.
func wireOf(t testing.TB, raw, data string) string {
	t.Helper()
	l, err := letterOf(t, raw, data, false)
	if err != nil {
		t.Fatalf("%v\n%s", err, raw)
	}
	return string(l.Wire)
}

// fieldOf is a header field as it is on the wire, with its folds.
func fieldOf(wire, name string) string {
	header, _, _ := strings.Cut(wire, "\r\n\r\n")
	_, after, ok := strings.Cut("\r\n"+header, "\r\n"+name+":")
	if !ok {
		return "no " + name
	}
	var b strings.Builder
	for i, line := range strings.Split(after, "\r\n") {
		if i > 0 && (line == "" || line[0] != ' ' && line[0] != '\t') {
			break
		}
		if i > 0 {
			b.WriteString("\r\n")
		}
		b.WriteString(line)
	}
	return b.String()
}

// bodyOf is what follows the header on the wire.
func bodyOf(wire string) string {
	_, body, _ := strings.Cut(wire, "\r\n\r\n")
	return body
}

// unstuffed is what a receiver reads.
func unstuffed(wire []byte) []byte { return bytes.ReplaceAll(wire, []byte("\r\n."), []byte("\r\n")) }

// textOf is the decoded text of a letter without parts, as go-message reads it,
// lines with LF.
func textOf(t testing.TB, wire string) string {
	t.Helper()
	e, err := message.Read(bytes.NewReader(unstuffed([]byte(wire))))
	if err != nil {
		t.Fatalf("%v\n%s", err, wire)
	}
	text, err := io.ReadAll(e.Body)
	if err != nil {
		t.Fatalf("%v\n%s", err, wire)
	}
	return strings.ReplaceAll(string(text), "\r\n", "\n")
}

// quoteJSON is s in JSON.
func quoteJSON(s string) []byte {
	quoted, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return quoted
}
