package envelope

import (
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestABatchHasThisFormOnTheWire(t *testing.T) {
	t.Parallel()
	batches := []Batch{
		{ID: "0001", From: "news@example.com", Recipients: published("ann@example.net", "bob@example.org"), Message: "From: News <news@example.com>\r\nSubject: Hi\r\n\r\nHello.\r\n"},
		{From: "", Recipients: published("ann@example.net"), MessageRef: "october letter"},
		{ID: "dsn", From: "news@example.com", Recipients: published("ann@example.net"), MessageRef: "m", DSN: DSN{EnvelopeID: "QQ314159", Return: "HDRS", Notify: "FAILURE,DELAY"}},
		{Version: 2, ID: "letters", From: "news@example.com", MessageRef: "m", Data: `{"month": "May"}`, Recipients: append(published("bob@example.org"),
			Recipient{Address: "ann@example.net", Letter: &Letter{Name: "Ann \"Lee\"", Data: `{"first":"Ann","seen":[1,-2.5e3,true,null]}`}},
			Recipient{Address: "cid@example.org", Letter: &Letter{}})},
		{ID: "odd", From: `"a b"@example.com`, Recipients: published(`"say \"hi\""@example.net`, "jörg@example.org", "no address\x00\x7f"), Message: "Subject: t\n\n\ttab, a\rb, </script>, \u2028, 😀\n"},
	}
	golden := filepath.Join("testdata", "batch.golden.jsonl")
	var got []byte
	for _, b := range batches {
		got = append(b.AppendJSON(got), '\n')
	}
	if *update {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("the form on the wire changed, and publishers have to know (-want +got):\n%s", diff)
	}
	for i, line := range strings.Split(strings.TrimSpace(string(want)), "\n") {
		b, err := Decode([]byte(line))
		if err != nil {
			t.Fatalf("line %d: %v", i+1, err)
		}
		want := batches[i]
		want.Version = max(want.Version, 1)
		if diff := cmp.Diff(&want, b); diff != "" {
			t.Errorf("line %d reads as another batch (-want +got):\n%s", i+1, diff)
		}
	}
}

func TestABatchIsReadWhateverTheOrderSpaceAndEscapes(t *testing.T) {
	t.Parallel()
	want := &Batch{Version: 1, ID: "a-1_Z", From: "a@example.com", Recipients: published("x@example.net", "y/ü😀@example.net"), Message: "Subject: t\r\n\r\nhi\b\f\n"}
	for _, in := range []string{
		`{"id":"a-1_Z","from":"a@example.com","recipients":["x@example.net","y/ü😀@example.net"],"message":"Subject: t\r\n\r\nhi\b\f\n"}`,
		`{"message":"Subject: t\r\n\r\nhi\b\f\n","recipients":["x@example.net","y/ü😀@example.net"],"from":"a@example.com","id":"a-1_Z"}`,
		" {\t\"id\" : \"a-1_Z\" ,\r\n\"from\":\"a@example.com\", \"recipients\": [ \"x@example.net\" , \"y/ü😀@example.net\" ], \"message\":\"Subject: t\\r\\n\\r\\nhi\\b\\f\\n\" } \n",
		`{"\u0069d":"a\u002d1_Z","from":"a\u0040example.com","recipients":["x@example.net","y\/\u00fc\uD83D\ude00@example.net"],"message":"Subject: t\u000d\u000a\r\nhi\b\f\n"}`,
		`{"id":"a-1_Z","message_ref":"","from":"a@EXAMPLE.com","recipients":["x@example.net","y/ü😀@example.net"],"message":"Subject: t\r\n\r\nhi\b\f\n"}`,
	} {
		got, err := Decode([]byte(in))
		if err != nil {
			t.Errorf("%s: %v", in, err)
		} else if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", in, diff)
		}
	}
}

func TestTheSenderMayBeNullButNotMissing(t *testing.T) {
	t.Parallel()
	for _, from := range []string{`""`, `"<>"`} {
		b, err := Decode([]byte(`{"from":` + from + `,"recipients":["x@example.net"],"message_ref":"m"}`))
		if err != nil || b.From != "" {
			t.Errorf("from %s: %+v, %v", from, b, err)
		}
	}
}

// What a publisher finds with a batch among the dead letters.
func TestABatchThatCannotBeReadNamesTheFieldAndTheCure(t *testing.T) {
	t.Parallel()
	const ok = `"from":"a@example.com","recipients":["x@example.net"],"message":"m"`
	for _, test := range []struct{ in, want string }{
		{``, `batch: empty: a batch is a JSON object`},
		{" \n", `batch: empty: a batch is a JSON object`},
		{`[]`, `batch: not a JSON object`},
		{`hello`, `batch: not a JSON object`},
		{`{`, `batch: broken JSON at offset 1: a field name belongs here`},
		{`{` + ok, `batch: broken JSON at offset 68: a comma or } belongs after a value`},
		{`{` + ok + `,}`, `batch: broken JSON at offset 69: a field name belongs here`},
		{`{` + ok + `} {}`, `batch: broken JSON at offset 70: a batch is one JSON object with nothing after it`},
		{`{"from" "a@example.com"}`, `batch: broken JSON at offset 8: a colon belongs after a field name`},
		{`{"from":"a@example.com`, `from: broken JSON at offset 22: the string does not end`},
		{`{"from":}`, `from: broken JSON at offset 8: a string belongs here`},
		{`{"from":"a\x"}`, `from: broken JSON at offset 10: not an escape of JSON, or half of a surrogate pair`},
		{`{"message":"\ud83d"}`, `message: broken JSON at offset 12: not an escape of JSON, or half of a surrogate pair`},
		{"{\"message\":\"Subject: t\n\nhi\"}", `message: broken JSON at offset 22: a control character in a string has to be escaped`},
		{"{\"message\":\"f\xfcr\"}", `message: not UTF-8 at offset 13: encode it as MIME does, or send the message by message_ref`},
		{"{\"message\":\"\\tf\xfcr\"}", `message: not UTF-8 at offset 15: encode it as MIME does, or send the message by message_ref`},
		{`{"recipients":["x@example.net" "y@example.net"]}`, `recipients: broken JSON at offset 31: a comma or ] belongs after a recipient`},
		{`{"recipients":["x@example.net",]}`, `recipients[1]: broken JSON at offset 31: a string or an object belongs here`},

		{`{"recipients":["x@example.net",17]}`, `recipients[1]: not a string or an object`},
		{`{"recipients":["x@example.net",{"email":"y@example.net"}]}`, `recipients[1]: unknown field "email": a recipient has to, name and data`},
		{`{"recipients":[{"name":"Y"}]}`, `recipients[0].to: missing`},
		{`{"recipients":[{"to":"x","to":"x"}]}`, `recipients[0].to: given twice`},
		{`{"recipients":[{"to":["x"]}]}`, `recipients[0].to: not a string`},
		{`{"recipients":[{"to":"x","name":null}]}`, `recipients[0].name: not a string`},
		{`{"recipients":[{"to":"x","data":[]}]}`, `recipients[0].data: not an object`},
		{`{"recipients":[{"to":"x","data":{"a":}}]}`, `recipients[0].data: broken JSON at offset 37: a value belongs here`},
		{`{"recipients":[{"to":"x","data":{"a":01}}]}`, `recipients[0].data: broken JSON at offset 38: a comma or } belongs after a value`},
		{`{"recipients":[{"to":"x","data":{"a":"\ud800"}}]}`, `recipients[0].data: broken JSON at offset 38: not an escape of JSON, or half of a surrogate pair`},
		{`{"recipients":[{"to":"x" "name":""}]}`, `recipients[0]: broken JSON at offset 25: a comma or } belongs after a value`},
		{`{"data":{"a":` + strings.Repeat("[", 500_000), `data: more than 64 lists and objects within one another`},
		{`{"data":{"a":"` + strings.Repeat("x", DataBytes) + `"},` + ok + `}`, `data: has 32776 bytes, 32768 are the most`},
		{`{"version":"2",` + ok + `}`, `version: not a positive integer`},
		{`{"version":0,` + ok + `}`, `version: not a positive integer`},
		{`{"version":-1,` + ok + `}`, `version: not a positive integer`},
		{`{"version":2.0,` + ok + `}`, `version: not a positive integer`},
		{`{"version":2e0,` + ok + `}`, `version: not a positive integer`},
		{`{"version":null,` + ok + `}`, `version: not a positive integer`},
		{`{"version":1,"version":3,` + ok + `}`, `version: given twice`},
		{`{"version":2,"new":1,` + ok + `}`, `"new": unknown field: a batch has id, from, recipients and message or message_ref`},
		{`{"version":3`, `batch: broken JSON at offset 12: a comma or } belongs after a value`},
		{`{"recipients":"x@example.net"}`, `recipients: not a list of addresses`},
		{`{"recipients":null}`, `recipients: not a list of addresses`},
		{`{"id":1}`, `id: not a string`},
		{`{"from":null}`, `from: not a string`},

		{`{"recipient":[]}`, `"recipient": unknown field: a batch has id, from, recipients and message or message_ref`},
		{`{"From":"a@example.com"}`, `"From": unknown field: a batch has id, from, recipients and message or message_ref`},
		{`{"a\nb":1}`, `"a\nb": unknown field: a batch has id, from, recipients and message or message_ref`},
		{`{"id":"1","id":"1",` + ok + `}`, `id: given twice`},
		{`{"id":"a.b",` + ok + `}`, `id: "a.b" is not 1 to 64 letters, digits, _ or -`},
		{`{"id":"` + strings.Repeat("x", 65) + `",` + ok + `}`, `id: "` + strings.Repeat("x", 65) + `" is not 1 to 64 letters, digits, _ or -`},
		{`{"recipients":["x@example.net"],"message":"m"}`, `from: missing: give the sender's address, or "" for the null sender`},
		{`{"from":"News <a@example.com>","recipients":["x@example.net"],"message":"m"}`, `from: "News <a@example.com>": a space outside quotes`},
		{`{"from":"a@example.com","message":"m"}`, `recipients: missing`},
		{`{"from":"a@example.com","recipients":[ ],"message":"m"}`, `recipients: the list is empty`},
		{`{"from":"a@example.com","recipients":["x@example.net"]}`, `message, message_ref: give exactly one of the two`},
		{`{"dsn_envid":"\t",` + ok + `}`, `dsn_envid: use printable ASCII`},
		{`{"dsn_envid":"` + strings.Repeat("=", 34) + `",` + ok + `}`, `dsn_envid: longer than the 100 octets that RFC 3461 allows`},
		{`{"dsn_return":"full",` + ok + `}`, `dsn_return: "full" is neither FULL nor HDRS`},
		{`{"dsn_notify":"NEVER,DELAY",` + ok + `}`, `dsn_notify: "NEVER,DELAY" is neither NEVER nor a list of SUCCESS, FAILURE, DELAY with commas`},
		{`{"message_ref":"o",` + ok + `}`, `message, message_ref: give exactly one of the two`},
		{`{"from":"a@example.com","recipients":["x@example.net"],"message":""}`, `message, message_ref: give exactly one of the two`},
	} {
		b, err := Decode([]byte(test.in))
		if err == nil {
			t.Errorf("%s: read as %+v", test.in, b)
		} else if err.Error() != test.want {
			t.Errorf("%s:\n got %s\nwant %s", test.in, err, test.want)
		}
	}
}

func TestABatchOfALaterVersionIsToldFromABrokenOne(t *testing.T) {
	t.Parallel()
	for in, version := range map[string]int{
		`{"version":3,"from":"a@example.com","recipients":["x@example.net"],"message":"m"}`: 3,
		`{"recipients":{"from":"the list"},"from":17,"new":[{"x":null}],"version":4}`:       4,
		`{"version":99999999999999999999}`:                                                  math.MaxInt,
	} {
		_, err := Decode([]byte(in))
		if e, ok := errors.AsType[*VersionError](err); !ok || e.Version != version {
			t.Errorf("%s: %v, want version %d", in, err, version)
		}
	}
}

func TestABatchIsOneOfLettersWhenItHasDataOrARecipientThatIsAnObject(t *testing.T) {
	t.Parallel()
	const rest = `,"from":"a@example.com","message_ref":"m"}`
	for in, want := range map[string]bool{
		`{"recipients":["x@example.net"]`:                            false,
		`{"version":2,"recipients":["x@example.net"]`:                false,
		`{"recipients":["x@example.net",{"to":"y@example.net"}]`:     true,
		`{"version":1,"recipients":["x@example.net"],"data":{"a":1}`: true,
		`{"version":2,"recipients":["x@example.net"],"data":{}`:      true,
	} {
		b, err := Decode([]byte(in + rest))
		if err != nil || b.Letters() != want {
			t.Errorf("%s: %v, %+v", in, err, b)
		}
	}
	// A publisher in Go need not know the version.
	b := Batch{From: "a@example.com", MessageRef: "m", Recipients: []Recipient{{Address: "x", Letter: &Letter{}}}}
	if got, err := Decode(b.AppendJSON(nil)); err != nil || got.Version != 2 || !got.Letters() {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestLettersStayWhereTheyAreHoweverManyFollow(t *testing.T) {
	t.Parallel()
	b := Batch{From: "a@example.com", MessageRef: "m"}
	for i := range 1000 {
		r := Recipient{Address: fmt.Sprint(i, "@example.net"), Letter: &Letter{Name: fmt.Sprint("n", i), Data: fmt.Sprintf(`{"i":%d}`, i)}}
		b.Recipients = append(b.Recipients, r)
	}
	got, err := Decode(b.AppendJSON(nil))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(b.Recipients, got.Recipients); diff != "" {
		t.Error(diff)
	}
}

func published(addresses ...string) []Recipient {
	list := make([]Recipient, len(addresses))
	for i, a := range addresses {
		list[i].Address = a
	}
	return list
}

func TestDecodingAllocatesTheSameForAnyNumberOfRecipients(t *testing.T) {
	few, many := batchOf(10, 10).AppendJSON(nil), batchOf(10000, 10).AppendJSON(nil)
	count := func(data []byte) float64 {
		return testing.AllocsPerRun(10, func() {
			if _, err := Decode(data); err != nil {
				t.Fatal(err)
			}
		})
	}
	if a, b := count(few), count(many); a != b {
		t.Errorf("%v allocations for 10 recipients, %v for 10,000", a, b)
	}
}
