package bounce

import (
	"bufio"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// labelled is what a collection says of its mails, by file.
func labelled(t *testing.T, dir string) map[string][]bool {
	t.Helper()
	f, err := os.Open(filepath.Join(dir, "labels.tsv"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	hard := make(map[string][]bool)
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if columns := strings.Split(lines.Text(), "\t"); len(columns) == 5 && columns[0] != "file" {
			hard[columns[0]] = append(hard[columns[0]], columns[4] == "1")
		}
	}
	if err := lines.Err(); err != nil || len(hard) == 0 {
		t.Fatalf("%s: %d files labelled, %v", dir, len(hard), err)
	}
	return hard
}

// The collection is not a part of this repository. It is read where it lies beside
// it, or where BULKMAIL_BOUNCES says: labels.tsv (file, status, code, reason, hard)
// and the mails in mail/.
func TestMostBouncesOfACollectionAreReadRight(t *testing.T) {
	t.Parallel()
	dir := os.Getenv("BULKMAIL_BOUNCES")
	if dir == "" {
		dir = "../../../shared/corpus/bounces"
	}
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("%s is not there; BULKMAIL_BOUNCES says where a labelled collection lies", dir)
	}
	var dead, found, alive, wrong, all, named int
	for file, hard := range labelled(t, dir) {
		mail, err := os.ReadFile(filepath.Join(dir, "mail", file))
		if err != nil {
			t.Fatal(err)
		}
		recipients := Parse(mail).Recipients
		for i, want := range hard {
			got := recipients[min(i, len(recipients)-1)]
			all++
			if got.Address != "" {
				named++
			}
			switch {
			case want:
				dead++
				if got.Hard {
					found++
				} else {
					t.Logf("%s: recipient %d is dead, got %+v", file, i, got)
				}
			default:
				alive++
				if got.Hard {
					wrong++
					t.Logf("%s: recipient %d is not dead, got %+v", file, i, got)
				}
			}
		}
	}
	t.Logf("hard %d of %d found, %d of %d wrongly hard, recipient of %d of %d", found, dead, wrong, alive, named, all)
	if 100*found < 95*dead || 100*wrong > alive || 100*named < 97*all {
		t.Errorf("less than 95 %% of the hard found, more than 1 %% wrongly hard, or less than 97 %% of the recipients")
	}
}
