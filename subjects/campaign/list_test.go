package campaign

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"bulkmail/testdata"
)

func recipientsOf(t *testing.T, list string) []string {
	t.Helper()
	var got []string
	for recipient, err := range ReadList(strings.NewReader(list)) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, recipient.Address)
	}
	return got
}

func TestAListIsReadInEachOfItsForms(t *testing.T) {
	t.Parallel()
	const bom = "\ufeff"
	for name, tc := range map[string]struct {
		list string
		want []string
	}{
		"empty":                          {"", nil},
		"one a line":                     {"ann@example.net\nbob@example.net\n", []string{"ann@example.net", "bob@example.net"}},
		"no line end at the end":         {"ann@example.net\nbob@example.net", []string{"ann@example.net", "bob@example.net"}},
		"CRLF":                           {"ann@example.net\r\n\r\nbob@example.net\r\n", []string{"ann@example.net", "bob@example.net"}},
		"byte order mark":                {bom + "ann@example.net\n", []string{"ann@example.net"}},
		"blanks, comments, empty lines":  {"# who\n\n  ann@example.net\t\n  # not now: bob@example.net\n", []string{"ann@example.net"}},
		"names":                          {"Ann <ann@example.net>\n\"B, O\" <bob@example.net>\n< carl@example.org >\n", []string{"ann@example.net", "bob@example.net", "carl@example.org"}},
		"a bracket in a quoted local":    {`"a<b"@example.net` + "\n", []string{`"a<b"@example.net`}},
		"invalid ones are passed on":     {"nobody\na@b@c\n", []string{"nobody", "a@b@c"}},
		"not UTF-8":                      {"j\xfcrgen@example.net\n", []string{"j\ufffdrgen@example.net"}},
		"CSV":                            {"name,email\nAnn,ann@example.net\n\"B, O\",bob@example.net\n", []string{"ann@example.net", "bob@example.net"}},
		"CSV, semicolons, other case":    {"Name;E-Mail;EMAIL\nAnn;x;ann@example.net\n", []string{"ann@example.net"}},
		"CSV, tabs":                      {"email\tname\nann@example.net\tAnn\n", []string{"ann@example.net"}},
		"CSV, quoted header and mark":    {bom + "\"email\",\"name\"\r\nann@example.net,Ann\r\n", []string{"ann@example.net"}},
		"CSV, one column":                {"email\nann@example.net\n", []string{"ann@example.net"}},
		"CSV, short and empty rows":      {"name,email\nAnn\nBob,\n\nCarl, carl@example.org \n", []string{"carl@example.org"}},
		"CSV, more columns than headers": {"email,name\nann@example.net,Ann,more\n", []string{"ann@example.net"}},
		"CSV, line end in a field":       {"name,email\n\"Ann\nof X\",ann@example.net\n", []string{"ann@example.net"}},
		"a column that only ends so":     {"myemail,name\n", []string{"myemail,name"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(tc.want, recipientsOf(t, tc.list)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestARecipientKnowsItsLine(t *testing.T) {
	t.Parallel()
	want := []Recipient{{3, "ann@example.net"}, {5, "bob@example.net"}}
	for name, list := range map[string]string{
		"lines": "# who\n\nAnn <ann@example.net>\n\nbob@example.net",
		"CSV":   "name,email\n\"Ann\nof X\",ann@example.net\nCarl,\nBob,bob@example.net\n",
	} {
		var got []Recipient
		for r, err := range ReadList(strings.NewReader(list)) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, r)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestTheShippedListHas2000Recipients(t *testing.T) {
	t.Parallel()
	recipients := recipientsOf(t, testdata.Recipients)
	slices.Sort(recipients)
	if n := len(slices.Compact(recipients)); n != 2000 {
		t.Errorf("%d recipients", n)
	}
}

func TestABrokenListSaysWhere(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", listBuffer+1)
	for name, tc := range map[string]struct{ list, want string }{
		"a line without end":     {"ann@example.net\n\n" + long, "line 3: longer than 65536 octets: is it a list of addresses?"},
		"a first line like that": {long, "line 1: longer than 65536 octets: is it a list of addresses?"},
		"a bare quote in CSV":    {"name,email\nAnn,ann@example.net\nB\"ob,bob@example.net\n", `line 3: bare " in non-quoted-field`},
		"a quote that stays":     {"name,email\n\"Ann,ann@example.net\n", `line 2: extraneous or missing " in quoted-field`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var failed error
			for _, err := range ReadList(strings.NewReader(tc.list)) {
				if failed != nil {
					t.Error("it goes on after an error")
				}
				failed = err
			}
			if _, ok := errors.AsType[*LineError](failed); !ok || failed.Error() != tc.want {
				t.Errorf("error is %v, want %s", failed, tc.want)
			}
		})
	}
}

var errDisk = errors.New("disk on fire")

// endless is a list that has no end, or breaks.
type endless struct {
	read   int
	breaks bool
}

func (e *endless) Read(p []byte) (int, error) {
	if e.breaks && e.read > 2*listBuffer {
		return 0, errDisk
	}
	n := copy(p, fmt.Sprintf("%07d@example.net\n", e.read))
	e.read += n
	return n, nil
}

func TestAListIsReadNoFurtherThanNeeded(t *testing.T) {
	t.Parallel()
	for name, header := range map[string]string{"lines": "", "CSV": "email\n"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			list := new(endless)
			n := 0
			for _, err := range ReadList(io.MultiReader(strings.NewReader(header), list)) {
				if err != nil {
					t.Fatal(err)
				}
				if n++; n == 10_000 {
					break
				}
			}
			if most := 10_000*len("0000000@example.net\n") + 2*listBuffer; list.read > most {
				t.Errorf("%d octets read, %d would do", list.read, most)
			}
		})
	}
}

func TestAListThatCannotBeReadToItsEndIsAnError(t *testing.T) {
	t.Parallel()
	var failed error
	for _, err := range ReadList(&endless{breaks: true}) {
		failed = err
	}
	if !errors.Is(failed, errDisk) {
		t.Errorf("error is %v", failed)
	}
}
