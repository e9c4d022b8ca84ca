package runner_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"bulkmail/subjects/broker/brokertest"
)

const (
	tree    = "../.."
	outside = "testdata/outside"
)

// outsideModule is a module outside the tree that needs bulkmail by replace.
func outsideModule(t *testing.T) (dir string) {
	t.Helper()
	root, err := filepath.Abs(tree)
	if err != nil {
		t.Fatal(err)
	}
	sums, err := os.ReadFile(filepath.Join(root, "go.sum"))
	if err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(outside)); err != nil {
		t.Fatal(err)
	}
	mod := fmt.Sprintf("module outside\n\ngo 1.26.0\n\nrequire bulkmail v0.0.0\n\nreplace bulkmail => %s\n", root)
	for name, content := range map[string][]byte{"go.mod": []byte(mod), "go.sum": sums} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestAModuleOutsideTheTreeRunsAWorkerAndPublishes(t *testing.T) {
	t.Parallel()
	dir := outsideModule(t)
	build := exec.CommandContext(t.Context(), "go", "build", "-o", "outside", ".")
	build.Dir = dir
	// What the tree needs is there already, and nothing else is fetched.
	build.Env = append(os.Environ(), "GOFLAGS=-mod=mod -buildvcs=false", "GOPROXY=off", "GOSUMDB=off", "GOWORK=off")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	program := exec.CommandContext(t.Context(), filepath.Join(dir, "outside"), brokertest.Start(t).URL())
	var errs bytes.Buffer
	program.Stderr = &errs
	out, err := program.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, errs.String())
	}
	printed := slices.Sorted(strings.Lines(string(out))) // the worker and the publisher go on side by side
	want := []string{"1 of 1 accepted\n", "ann@example.net accepted printer 250\n", "to ann@example.net\n", "was paused\n"}
	if !slices.Equal(printed, want) || errs.Len() > 0 {
		t.Errorf("it printed %q and %q, want %q", out, errs.String(), want)
	}
}

func TestTheReadmeShowsGoThatIsBuilt(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile(filepath.Join(tree, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	var built strings.Builder
	for _, name := range []string{"main.go", "publish.go"} {
		source, err := os.ReadFile(filepath.Join(outside, name))
		if err != nil {
			t.Fatal(err)
		}
		built.Write(source)
	}
	shown := strings.Split(string(readme), "\n```go\n")[1:]
	if len(shown) == 0 {
		t.Error("README.md shows no Go, or this test does not find it")
	}
	for _, block := range shown {
		block, _, _ = strings.Cut(block, "\n```")
		if !strings.Contains(built.String(), block+"\n") {
			t.Errorf("README.md shows what %s does not have:\n%s", outside, block)
		}
	}
}
