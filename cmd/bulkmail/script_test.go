package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unicode/utf16"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rogpeppe/go-internal/testscript"

	"bulkmail/testdata/testrun"
)

// waitAtMost bounds every wait for a program; it is long because the machine may
// be busy, and no test waits for it to pass.
const waitAtMost = 60 * time.Second

// raceOptions keep a program that was built with the race detector from waiting
// a second at its end, in case a race is being reported.
const raceOptions = "atexit_sleep_ms=0"

func TestMain(m *testing.M) {
	testscript.Main(sixAtOnce{m}, map[string]func(){"bulkmail": main})
}

// sixAtOnce runs the tests; it is not asked where this binary is bulkmail itself.
type sixAtOnce struct{ *testing.M }

func (m sixAtOnce) Run() int {
	testrun.AtOnce(6)
	return m.M.Run()
}

// TestCommandLine runs testdata/script/*.txtar, which specify the command line.
// See testdata/script/README.md for what they may say.
func TestCommandLine(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Deadline:            time.Now().Add(5 * time.Minute), // a program that hangs is ended and shown
		Setup: func(env *testscript.Env) error {
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("GORACE", raceOptions)
			env.Setenv("BULKMAIL_LISTEN", "127.0.0.1:0")
			env.Setenv("BULKMAIL_HTTP", "127.0.0.1:0")
			env.Setenv("BULKMAIL_DATA_DIR", filepath.Join(env.WorkDir, "data"))
			env.Setenv("BULKMAIL_LOG_FORMAT", "text")
			env.Setenv("BULKMAIL_SYNC", "interval") // no script cuts the power
			env.Values[programsKey{}] = make(map[string]*program)
			return nil
		},
		Condition: func(cond string) (bool, error) {
			if cond == "require_peers" {
				return os.Getenv("BULKMAIL_REQUIRE_PEERS") != "", nil
			}
			return false, fmt.Errorf("condition %q is unknown", cond)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"start":       startCommand,
			"await":       awaitCommand,
			"hangup":      hangupCommand,
			"terminate":   terminateCommand,
			"ends":        endsCommand,
			"exits":       exitsCommand,
			"until":       untilCommand,
			"freeport":    freeportCommand,
			"publish-raw": publishRawCommand,
			"messages":    messagesCommand,
			"fill":        fillCommand,
			"encode":      encodeCommand,
		},
	})
}

// A program is a process that runs beside a test.
type program struct {
	cmd    *exec.Cmd
	stdout bytes.Buffer // to be read after exited is closed
	exited chan struct{}
	err    error // of Wait, set before exited is closed

	mu      sync.Mutex // guards what follows
	stderr  []byte
	awaited int           // how much of stderr was seen by await
	written chan struct{} // something was written since it was emptied
}

// startProgram starts a process with nothing in its environment but env, and
// ends it with the test at the latest.
func startProgram(deferred func(func()), dir string, env []string, name string, args ...string) (*program, error) {
	p := &program{exited: make(chan struct{}), written: make(chan struct{}, 1)}
	p.cmd = exec.Command(name, args...)
	p.cmd.Dir, p.cmd.Env = dir, env
	p.cmd.Stdout, p.cmd.Stderr = &p.stdout, p
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.exited)
	}()
	deferred(func() {
		_ = p.cmd.Process.Kill() // has ended, if that fails
		<-p.exited
	})
	return p, nil
}

// Write takes the program's standard error.
func (p *program) Write(b []byte) (int, error) {
	p.mu.Lock()
	p.stderr = append(p.stderr, b...)
	p.mu.Unlock()
	select {
	case p.written <- struct{}{}:
	default:
	}
	return len(b), nil
}

// await waits for a line on standard error, after the one that was awaited
// before, and returns the first group of the expression.
func (p *program) await(line *regexp.Regexp) (string, error) {
	timeout := time.NewTimer(waitAtMost)
	defer timeout.Stop()
	for exited := false; ; {
		if group, ok := p.seen(line); ok {
			return group, nil
		}
		if exited {
			return "", fmt.Errorf("ended without a line %q:\n%s", line, p.errors())
		}
		select {
		case <-p.written:
		case <-p.exited:
			exited = true
		case <-timeout.C:
			return "", fmt.Errorf("no line %q in %s:\n%s", line, waitAtMost, p.errors())
		}
	}
}

func (p *program) seen(line *regexp.Regexp) (group string, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		text, _, whole := bytes.Cut(p.stderr[p.awaited:], []byte("\n"))
		if !whole {
			return "", false
		}
		p.awaited += len(text) + 1
		if found := line.FindSubmatch(text); found != nil {
			return string(found[len(found)-1]), true
		}
	}
}

func (p *program) errors() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return string(p.stderr)
}

// terminate sends SIGTERM and returns the exit code.
func (p *program) terminate() (int, error) {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return 0, err
	}
	return p.exit()
}

// exit waits for the end and returns the exit code.
func (p *program) exit() (int, error) {
	timeout := time.NewTimer(waitAtMost)
	defer timeout.Stop()
	select {
	case <-p.exited:
		return p.cmd.ProcessState.ExitCode(), nil
	case <-timeout.C:
		return 0, fmt.Errorf("still running after %s:\n%s", waitAtMost, p.errors())
	}
}

type programsKey struct{}

func programOf(ts *testscript.TestScript, name string) *program {
	p := ts.Value(programsKey{}).(map[string]*program)[name]
	if p == nil {
		ts.Fatalf("%s was not started", name)
	}
	return p
}

// environmentOf is a script's environment, as far as the programs need it.
func environmentOf(ts *testscript.TestScript) []string {
	keys := []string{"PATH", "HOME", "TMPDIR", "GORACE", "GOCOVERDIR"}
	for field := range reflect.TypeFor[config]().Fields() {
		keys = append(keys, prefix+"_"+field.Tag.Get("envconfig"))
	}
	var env []string
	for _, key := range keys {
		if value := ts.Getenv(key); value != "" {
			env = append(env, key+"="+value)
		}
	}
	return env
}

// start NAME PROGRAM [ARG...] runs a program beside the script.
func startCommand(ts *testscript.TestScript, neg bool, args []string) {
	usageOf(ts, neg || len(args) < 2, "start NAME PROGRAM [ARG...]")
	path, err := exec.LookPath(args[1])
	ts.Check(err)
	p, err := startProgram(ts.Defer, ts.MkAbs("."), environmentOf(ts), path, args[2:]...)
	ts.Check(err)
	ts.Value(programsKey{}).(map[string]*program)[args[0]] = p
}

// await NAME EXPRESSION [VARIABLE] waits until a program writes a line that
// matches to standard error, and keeps what the group matched.
func awaitCommand(ts *testscript.TestScript, neg bool, args []string) {
	usageOf(ts, neg || len(args) < 2 || len(args) > 3, "await NAME EXPRESSION [VARIABLE]")
	line, err := regexp.Compile(args[1])
	ts.Check(err)
	group, err := programOf(ts, args[0]).await(line)
	if err != nil {
		ts.Fatalf("%s %v", args[0], err)
	}
	if len(args) == 3 {
		ts.Setenv(args[2], group)
	}
}

// hangup NAME sends SIGHUP to a program.
func hangupCommand(ts *testscript.TestScript, neg bool, args []string) {
	usageOf(ts, neg || len(args) != 1, "hangup NAME")
	ts.Check(programOf(ts, args[0]).cmd.Process.Signal(syscall.SIGHUP))
}

// terminate NAME [CODE] sends SIGTERM to a program, waits for its end, wants the
// exit code (0), and leaves what it wrote in the files NAME.out and NAME.err.
func terminateCommand(ts *testscript.TestScript, neg bool, args []string) {
	usageOf(ts, neg || len(args) < 1 || len(args) > 2, "terminate NAME [CODE]")
	p := programOf(ts, args[0])
	code, err := p.terminate()
	ts.Check(err)
	p.leave(ts, args, code)
}

// ends NAME [CODE] does the same with a program that ends by itself.
func endsCommand(ts *testscript.TestScript, neg bool, args []string) {
	usageOf(ts, neg || len(args) < 1 || len(args) > 2, "ends NAME [CODE]")
	p := programOf(ts, args[0])
	code, err := p.exit()
	ts.Check(err)
	p.leave(ts, args, code)
}

// leave checks the exit code and leaves the output of a program in files.
func (p *program) leave(ts *testscript.TestScript, args []string, code int) {
	if want := append(args, "0")[1]; strconv.Itoa(code) != want {
		ts.Fatalf("%s ended with %d, not %s:\n%s", args[0], code, want, p.errors())
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]+".out"), p.stdout.Bytes(), 0o600))
	ts.Check(os.WriteFile(ts.MkAbs(args[0]+".err"), []byte(p.errors()), 0o600))
}

// exits CODE PROGRAM [ARG...] runs a program and wants an exit code.
func exitsCommand(ts *testscript.TestScript, neg bool, args []string) {
	usageOf(ts, neg || len(args) < 2, "exits CODE PROGRAM [ARG...]")
	code := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		exit, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			ts.Check(err)
		}
		code = exit.ExitCode()
	}
	if strconv.Itoa(code) != args[0] {
		ts.Fatalf("exit code %d, not %s", code, args[0])
	}
}

// until EXPRESSION PROGRAM [ARG...] runs a program again and again until it prints a
// line that matches.
func untilCommand(ts *testscript.TestScript, neg bool, args []string) {
	usageOf(ts, neg || len(args) < 2, "until EXPRESSION PROGRAM [ARG...]")
	line, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	for deadline := time.Now().Add(waitAtMost); ; time.Sleep(50 * time.Millisecond) { // of what another process knows there is no signal
		ts.Check(ts.Exec(args[1], args[2:]...))
		if line.MatchString(ts.ReadFile("stdout")) {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("no line %q in %s", args[0], waitAtMost)
		}
	}
}

// ports counts the ports that freePort has looked at.
var ports atomic.Uint32

// freePort is a port of loopback that nothing listens on. It is below those
// that the kernel gives to connections and to listeners on port 0, so that
// nobody gets it meanwhile.
func freePort(fatalf func(string, ...any)) uint32 {
	const first, most = 20_000, 12_000
	for range most {
		port := first + (uint32(os.Getpid())*64+ports.Add(1))%most
		if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			_ = l.Close()
			return port
		}
	}
	fatalf("no port is free")
	return 0
}

// freeport VARIABLE... sets variables to ports that nothing listens on.
func freeportCommand(ts *testscript.TestScript, neg bool, args []string) {
	usageOf(ts, neg || len(args) == 0, "freeport VARIABLE...")
	for _, variable := range args {
		ts.Setenv(variable, fmt.Sprint(freePort(ts.Fatalf)))
	}
}

// jetStream connects to the script's broker as any NATS client would.
func jetStream(ts *testscript.TestScript) (jetstream.JetStream, context.Context) {
	nc, err := nats.Connect(ts.Getenv("BULKMAIL_NATS_URL"))
	ts.Check(err)
	ts.Defer(nc.Close)
	js, err := jetstream.New(nc)
	ts.Check(err)
	ctx, cancel := context.WithTimeout(context.Background(), waitAtMost)
	ts.Defer(cancel)
	return js, ctx
}

// publish-raw SUBJECT FILE [HEADER=VALUE...] publishes the octets of a file.
func publishRawCommand(ts *testscript.TestScript, neg bool, args []string) {
	usageOf(ts, neg || len(args) < 2, "publish-raw SUBJECT FILE [HEADER=VALUE...]")
	js, ctx := jetStream(ts)
	msg := &nats.Msg{Subject: args[0], Data: []byte(ts.ReadFile(args[1])), Header: nats.Header{}}
	for _, h := range args[2:] {
		key, value, _ := strings.Cut(h, "=")
		msg.Header.Set(key, value)
	}
	_, err := js.PublishMsg(ctx, msg)
	ts.Check(err)
}

// messages STREAM N waits until a stream has had N messages and prints them.
func messagesCommand(ts *testscript.TestScript, neg bool, args []string) {
	usageOf(ts, neg || len(args) != 2, "messages STREAM N")
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	js, ctx := jetStream(ts)
	consumer, err := js.OrderedConsumer(ctx, args[0], jetstream.OrderedConsumerConfig{})
	ts.Check(err)
	messages, err := consumer.Messages()
	ts.Check(err)
	defer messages.Stop()
	var all []jetstream.Msg
	for range n {
		m, err := messages.Next(jetstream.NextContext(ctx))
		ts.Check(err)
		all = append(all, m)
	}
	// What workers write at once comes in any order: a script needs one.
	slices.SortStableFunc(all, func(a, b jetstream.Msg) int { return strings.Compare(a.Subject(), b.Subject()) })
	for _, m := range all {
		fmt.Fprintln(ts.Stdout(), m.Subject())
		header := m.Headers()
		for _, key := range sortedKeys(header) {
			fmt.Fprintf(ts.Stdout(), "%s: %s\n", key, strings.Join(header[key], ", "))
		}
		fmt.Fprintf(ts.Stdout(), "\n%s\n\n", m.Data())
	}
}

// fill FILE BYTES appends lines to a file; each is an address of its own.
func fillCommand(ts *testscript.TestScript, neg bool, args []string) {
	usageOf(ts, neg || len(args) != 2, "fill FILE BYTES")
	size, err := strconv.Atoi(args[1])
	ts.Check(err)
	text := []byte(ts.ReadFile(args[0]))
	for i := 0; len(text) < size; i++ {
		text = fmt.Appendf(text, "%036d@%036d.example.net\n", i, i)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), text, 0o600))
}

// encode gzip|utf-16 FROM TO writes a file in another encoding.
func encodeCommand(ts *testscript.TestScript, neg bool, args []string) {
	usageOf(ts, neg || len(args) != 3, "encode gzip|utf-16 FROM TO")
	text := ts.ReadFile(args[1])
	var out bytes.Buffer
	switch args[0] {
	case "gzip":
		w := gzip.NewWriter(&out)
		_, err := w.Write([]byte(text))
		ts.Check(errors.Join(err, w.Close()))
	case "utf-16":
		ts.Check(binary.Write(&out, binary.LittleEndian, utf16.Encode([]rune("\ufeff"+text))))
	default:
		ts.Fatalf("encoding %q is unknown", args[0])
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[2]), out.Bytes(), 0o600))
}

func usageOf(ts *testscript.TestScript, wrong bool, usage string) {
	if wrong {
		ts.Fatalf("usage: %s", usage)
	}
}
