package campaign

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"bulkmail/envelope/list"
	"bulkmail/testdata"
)

// What a list may look like is tested with package list.
func TestARecipientKnowsItsLineAndWhetherItCanBeSentTo(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"lines": "# who\n\nAnn <ann@example.net>\nbob@@example.net\ncarl@example.org",
		"CSV":   "Name,E-Mail\n\"Ann\nof X\",ann@example.net\nBob,bob@@example.net\nCarl,carl@example.org\n",
	} {
		var got []string
		for r, err := range ReadList(strings.NewReader(text)) {
			if err != nil {
				t.Fatal(err)
			}
			line := fmt.Sprint(r.Line, " ", r.Address)
			if u, ok := unusable(r); ok {
				line += fmt.Sprint(" ! ", u.Line, " ", u.Text, ": ", u.Reason)
			}
			got = append(got, line)
		}
		want := []string{"3 ann@example.net", "4 bob@@example.net ! 4 bob@@example.net: more than one @", "5 carl@example.org"}
		if name == "CSV" { // the row of Ann begins on line 2
			want[0] = "2 ann@example.net"
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestTheShippedListHas2000Recipients(t *testing.T) {
	t.Parallel()
	var recipients []string
	for r, err := range ReadList(strings.NewReader(testdata.Recipients)) {
		if err != nil || r.Err != nil {
			t.Fatal(r, err)
		}
		recipients = append(recipients, r.Address)
	}
	slices.Sort(recipients)
	if n := len(slices.Compact(recipients)); n != 2000 {
		t.Errorf("%d recipients", n)
	}
}

func TestAListThatCannotBeReadOnEndsWithAnError(t *testing.T) {
	t.Parallel()
	disk := errors.New("disk on fire")
	for name, tc := range map[string]struct {
		list io.Reader
		n    int
		want string
	}{
		"what is no list": {strings.NewReader("%PDF-1.7\n"), 0, "it is a PDF"},
		"a broken disk":   {io.MultiReader(strings.NewReader(strings.Repeat("ann@example.net\n", 1000)), broken{disk}), 1000, "disk on fire"},
	} {
		n := 0
		var failed error
		for r, err := range ReadList(tc.list) {
			if failed != nil {
				t.Errorf("%s: it goes on after an error", name)
			}
			if failed = err; r.Address != "" {
				n++
			}
		}
		if _, ok := errors.AsType[*list.Error](failed); !ok || n != tc.n || !strings.Contains(failed.Error(), tc.want) {
			t.Errorf("%s: %d recipients, error %v", name, n, failed)
		}
	}
}

type broken struct{ err error }

func (b broken) Read([]byte) (int, error) { return 0, b.err }
