package subjects_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"bulkmail/subjects"
)

// encoded is an entry as encoding/json has it.
func encoded(t testing.TB, e subjects.Entry) []byte {
	t.Helper()
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(e); err != nil {
		t.Fatal(err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// Entries are written by hand; whoever reads them uses a library.
func FuzzEntriesAreWrittenAsTheLibraryWritesThem(f *testing.F) {
	for _, s := range []string{"", "ann@example.net", `"a\b"@x.test`, "<4XyZ&1> \u2028\u2029 später", "\x00\x1f\b\f\n\r\t\x7f", "\xff\xc3(\xe2\x80", "\U0001f600\ufffd"} {
		f.Add(s, 250, int64(1795474117123456789))
	}
	f.Fuzz(func(t *testing.T, s string, code int, at int64) {
		e := subjects.Entry{
			Time: time.Unix(0, at).UTC(), Worker: s, Attempt: code, Event: subjects.Event(s),
			Results: []subjects.Results{
				{Status: subjects.Accepted, Recipients: []string{s, "x", s + s}},
				{Status: subjects.Status(s), Relay: s, Code: code, Enhanced: s, Text: s},
				{Recipients: []string{}},
			},
		}
		if got, want := e.AppendJSON(nil), encoded(t, e); !bytes.Equal(got, want) {
			t.Errorf("got  %s\nwant %s", got, want)
		}
		e.Results = nil
		if got, want := e.AppendJSON([]byte("before ")), append([]byte("before "), encoded(t, e)...); !bytes.Equal(got, want) {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	})
}

// BenchmarkAppendEntry is an entry of a whole batch, beside encoding/json.
func BenchmarkAppendEntry(b *testing.B) {
	e := subjects.Entry{
		Time: time.Date(2026, 11, 23, 22, 48, 37, 123e6, time.UTC), Worker: "host-4711-aB3dEf", Attempt: 1, Event: subjects.Done,
		Results: []subjects.Results{{Status: subjects.Accepted, Relay: "primary", Code: 250, Enhanced: "2.0.0", Text: "Ok: queued as 4XyZ1"}},
	}
	for i := range 1000 {
		e.Results[0].Recipients = append(e.Results[0].Recipients, fmt.Sprintf("recipient%07d@domain%03d.test", i, i/100))
	}
	b.Run("by hand", func(b *testing.B) {
		b.ReportAllocs()
		var dst []byte
		for b.Loop() {
			dst = e.AppendJSON(dst[:0])
		}
	})
	b.Run("encoding json", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			encoded(b, e)
		}
	})
}
