package letter

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	msgauth "github.com/emersion/go-msgauth/dkim"
	"pgregory.net/rapid"

	"bulkmail/envelope/dkim"
)

// needs skips a test whose program is not there, but not in CI, which says
// BULKMAIL_REQUIRE_PEERS=1.
func needs(t *testing.T, pkg, name string, args ...string) {
	t.Helper()
	if err := exec.Command(name, args...).Run(); err == nil {
		return
	}
	why := name + " " + strings.Join(args, " ") + " does not work: apt-get install " + pkg
	if os.Getenv("BULKMAIL_REQUIRE_PEERS") == "1" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// many is how many letters are tried: a few, or those that BULKMAIL_LETTERS asks for,
// of which every share-th.
func many(t *testing.T, few, share int) int {
	t.Helper()
	asked := os.Getenv("BULKMAIL_LETTERS")
	if asked == "" {
		return few
	}
	n, err := strconv.Atoi(asked)
	if err != nil {
		t.Fatalf("BULKMAIL_LETTERS: %v", err)
	}
	return n / share
}

// python is Debian's, whose packages others do not see.
const python = "/usr/bin/python3"

// samples yields n random letters that can be made, and what they must say. Every
// so many of them is a message to many, which must say nothing; 0: none.
func samples(t *testing.T, n, toMany int, each func(i int, s *sample, l *Letter)) {
	t.Helper()
	drawn := rapid.Custom(drawSample)
	var r Renderer
	b := batch(t, "")
	for i, seed := 0, 0; i < n; seed++ {
		s := drawn.Example(seed)
		constant := toMany > 0 && i%toMany == 0
		tp, err := Compile(s.raw, Options{Constant: constant})
		if err != nil {
			t.Fatalf("%v\n%s", err, s.raw)
		}
		l, err := r.Render(tp, b, &Recipient{To: "ann@example.net", Data: string(s.json())}, seed%3 == 0)
		if _, rejected := errors.AsType[*RejectError](err); rejected != (s.refuses() && !constant) || err != nil && !rejected {
			t.Fatalf("%v with %q\n%s", err, s.data, s.raw)
		}
		if err == nil {
			each(i, s, &l)
			i++
		}
	}
}

// Two readers that nobody here wrote find the same values in the same places.
func TestPythonAndGoMessageReadWhatWasPutIn(t *testing.T) {
	t.Parallel()
	needs(t, "python3", python, "-c", "import email")
	n := many(t, 300, 1)
	cmd := exec.CommandContext(t.Context(), python, "testdata/readback.py")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var out, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problems
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	to := bufio.NewWriter(in)
	samples(t, n, 0, func(_ int, s *sample, l *Letter) {
		fit(t, l.Wire)
		raw := unstuffed(l.Wire)
		s.readBack(t, raw)
		line, err := json.Marshal(map[string]any{"letter": raw, "subject": squeeze(s.subject), "name": squeeze(s.data["n"]), "texts": s.texts})
		if err == nil {
			_, err = to.Write(append(line, '\n'))
		}
		if err != nil {
			t.Fatal(err)
		}
	})
	if err := errors.Join(to.Flush(), in.Close(), cmd.Wait()); err != nil {
		t.Fatalf("%v: %s", err, &problems)
	}
	if got, want := out.String(), fmt.Sprintf("{\"read\": %d}\n", n); got != want {
		t.Errorf("%.5000s", got)
	}
}

// A verifier says which of the files in a folder have a signature that holds.
type verifier struct {
	pkg    string
	needs  []string
	verify func(t *testing.T, dir string, files []string) map[string]bool
}

// asked runs a program that reads names and says pass or fail of each.
func asked(name string, args ...string) func(*testing.T, string, []string) map[string]bool {
	return func(t *testing.T, dir string, files []string) map[string]bool {
		cmd := exec.CommandContext(t.Context(), name, append(args, filepath.Join(dir, "dns"))...)
		cmd.Stdin = strings.NewReader(strings.Join(files, "\n") + "\n")
		var problems bytes.Buffer
		cmd.Stderr = &problems
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v: %s", err, &problems)
		}
		passed := make(map[string]bool)
		for line := range strings.Lines(string(out)) {
			if file, ok := strings.CutPrefix(strings.TrimSpace(line), "pass "); ok {
				passed[file] = true
			}
		}
		return passed
	}
}

func opendkim(t *testing.T, dir string, files []string) map[string]bool {
	passed := make(map[string]bool)
	for len(files) > 0 {
		some := files[:min(len(files), 500)]
		files = files[len(some):]
		cmd := exec.CommandContext(t.Context(), "/usr/sbin/opendkim", "-x", filepath.Join(dir, "opendkim.conf"), "-t", strings.Join(some, ","))
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %.2000s", err, out)
		}
		for line := range strings.Lines(string(out)) {
			if file, after, ok := strings.Cut(strings.TrimPrefix(line, "opendkim: "), ": verification "); ok && strings.HasSuffix(strings.TrimSpace(after), "succeeded") {
				passed[file] = true
			}
		}
	}
	return passed
}

func goMsgauth(keys dkim.Keys) func(*testing.T, string, []string) map[string]bool {
	return func(t *testing.T, _ string, files []string) map[string]bool {
		passed := make(map[string]bool)
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			found, err := msgauth.VerifyWithOptions(bytes.NewReader(text), &msgauth.VerifyOptions{LookupTXT: func(string) ([]string, error) {
				return []string{keys[0].Record()}, nil
			}})
			passed[file] = err == nil && len(found) == 1 && found[0].Err == nil
		}
		return passed
	}
}

// Programs that nobody here wrote find every signature right, of letters and of
// messages to many, and notice every change.
func TestThreeProgramsFindEverySignatureRightAndEveryChangeWrong(t *testing.T) {
	t.Parallel()
	pem, err := os.ReadFile("../dkim/testdata/rsa.pem")
	if err != nil {
		t.Fatal(err)
	}
	key, err := dkim.NewKey("example.com", "s1", pem)
	if err != nil {
		t.Fatal(err)
	}
	keys := dkim.Keys{key}
	dir := t.TempDir()
	write := func(name string, text []byte) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	write("dns", []byte(key.Name()+" "+key.Record()+"\n"))
	write("opendkim.conf", []byte("TestDNSData file:"+dir+"/dns\nMode v\nSyslog no\n"))
	var good, bad []string
	var signer dkim.Signer
	random := rand.New(rand.NewPCG(1, 2))
	samples(t, many(t, 40, 10), 4, func(i int, _ *sample, l *Letter) {
		signed, err := signer.Append(nil, l.Wire, keys, &dkim.Options{}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		signed = append(signed, unstuffed(l.Wire)...)
		good = append(good, write(fmt.Sprintf("%05d.eml", i), signed))
		bad = append(bad, write(fmt.Sprintf("%05d-changed.eml", i), changed(random, signed)))
	})
	for name, v := range map[string]verifier{
		"dkimpy":     {"python3-dkim", []string{python, "-c", "import dkim"}, asked(python, "testdata/verify.py")},
		"Mail::DKIM": {"libmail-dkim-perl", []string{"/usr/bin/perl", "-MMail::DKIM", "-e1"}, asked("/usr/bin/perl", "testdata/verify.pl")},
		"OpenDKIM":   {"opendkim", []string{"/usr/sbin/opendkim", "-V"}, opendkim},
		"go-msgauth": {"", []string{"true"}, goMsgauth(keys)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			needs(t, v.pkg, v.needs[0], v.needs[1:]...)
			passed := v.verify(t, dir, slices.Concat(good, bad))
			wrong := 0
			for i, file := range good {
				if passed[file] && !passed[bad[i]] {
					continue
				}
				if wrong++; wrong <= 3 {
					text, _ := os.ReadFile(file)
					t.Errorf("signed: %v, changed: %v\n%s", passed[file], passed[bad[i]], text)
				}
			}
			if wrong > 0 {
				t.Errorf("%d of %d are wrong", wrong, len(good))
			}
		})
	}
}

// changed changes one thing in a message that has a signature.
func changed(random *rand.Rand, signed []byte) []byte {
	header, body, _ := bytes.Cut(signed, []byte("\r\n\r\n"))
	switch random.IntN(4) {
	case 0:
		return append([]byte("From: other@example.com\r\n"), signed...)
	case 1:
		return append(bytes.Clone(signed), "more\r\n"...)
	case 2:
		return append(append(bytes.Replace(header, []byte("<news@"), []byte("<mews@"), 1), "\r\n\r\n"...), body...)
	}
	body = bytes.Clone(body)
	for {
		at := random.IntN(len(body))
		if c := body[at]; 'a' <= c && c < 'z' || '0' <= c && c < '9' {
			body[at]++
			return append(append(bytes.Clone(header), "\r\n\r\n"...), body...)
		}
	}
}
