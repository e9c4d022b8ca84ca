// Command bulkmail sends one message to very many people over SMTP relays, from
// batches on NATS JetStream. See README.md.
//
// One file a command or group of commands: worker.go, publish.go, status.go,
// outcomes.go, pause.go (resume and cancel too), dead.go, relays.go, sink.go,
// demo.go, bench.go, health.go, man.go, version.go, provision.go, certs.go,
// feedback.go, preview.go, check.go, keys.go, dkim.go, suppress.go. What they share: completion.go, config.go (the environment),
// logging.go, connect.go (the broker), follow.go (a campaign until its end),
// progress.go, table.go. What is published and how is in subjects/campaign, what a
// worker is made of in worker/runner.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	_ "time/tzdata" // containers have no zones, and hours are said in them

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	relayconfig "bulkmail/relay/config"
)

// Exit codes.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2 // wrong usage or configuration
)

// exitStatuses are the exit codes for the manual.
var exitStatuses = [...]struct {
	code  int
	means string
}{
	{exitDone, "done"},
	{exitFailed, "failed; one line on standard error says what to change"},
	{exitUsage, "wrong usage or configuration; every problem of the configuration has a line on standard error"},
}

func main() {
	// The first signal asks for a drain; then the default is back, and a second
	// one cuts.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run is the program without the process around it.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := newRoot(&streams{stdin, stdout, stderr}) //nolint:contextcheck // commands take the context of Execute
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitDone
	}
	_, isUsage := errors.AsType[*usageError](err)
	if silent, ok := errors.AsType[*silentError](err); !ok || silent.Err != nil {
		fmt.Fprintln(stderr, "bulkmail: "+err.Error())
	}
	if isUsage {
		return exitUsage
	}
	return exitFailed
}

// streams are the process's standard streams.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

// usageError is wrong usage or configuration: exit code 2.
type usageError struct{ Err error }

func (e *usageError) Error() string { return e.Err.Error() }
func (e *usageError) Unwrap() error { return e.Err }

// silentError is a failure that was told already: exit code 1 without a line.
type silentError struct{ Err error }

func (e *silentError) Error() string { return "failed" }

func newRoot(s *streams) *cobra.Command {
	root := &cobra.Command{
		Use:   "bulkmail",
		Short: "Bulk mail over NATS JetStream: nobody is lost, nobody is sent to twice",
		Long: `bulkmail sends one message to very many people over SMTP relays.

Publishers put batches of recipients on NATS JetStream; workers group them by
domain, send them over relays in robin order, and record what became of every
recipient. What is deferred is tried again.`,
		Example: `  bulkmail demo                        # everything in one process, to look at
  bulkmail sink --listen 127.0.0.1:2525
  BULKMAIL_RELAYS=smtp://127.0.0.1:2525 bulkmail worker
  bulkmail publish --from news@example.com --message hello.eml --wait list.txt`,
		Version:       thisBuild().String(), // --version
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return cmd.Help()
		},
	}
	root.AddCommand(newDemo(s), newWorker(s), newPublish(s), newStatus(s), newOutcomes(s), newPause(s), newResume(s), newCancel(s),
		newDead(s), newRelays(s), newSink(s), newHealth(s), newBench(s), newMan(s), newVersion(s), newProvision(s), newCerts(s), newFeedback(s),
		newPreview(s), newCheck(s), newKeys(s), newDKIM(s), newSuppress(s))
	root.SetVersionTemplate("{{.Version}}\n")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usage(cmd, meant(cmd, err))
	})
	addCobras(root)
	markUsage(root)
	completeQuietly(root)
	return root
}

// addCobras adds the commands that cobra brings, with what they lack: examples,
// and a word about arguments that mean nothing.
func addCobras(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	for _, cmd := range root.Commands() {
		switch cmd.Name() {
		case "help":
			cmd.Example = "  bulkmail help publish"
			cmd.Args = func(_ *cobra.Command, args []string) error {
				if _, rest, err := root.Find(args); err != nil || len(rest) > 0 {
					return fmt.Errorf("there is no command %q", strings.Join(args, " "))
				}
				return nil
			}
		case "completion":
			cmd.Example = "  bulkmail completion bash > /etc/bash_completion.d/bulkmail"
			cmd.Args = cobra.NoArgs
			cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
			for _, shell := range cmd.Commands() {
				shell.Example = "  bulkmail completion " + shell.Name()
			}
		}
	}
}

// noArguments is for commands that have others beneath them: an argument is a
// command that is not there.
func noArguments(cmd *cobra.Command, args []string) error {
	err := cobra.NoArgs(cmd, args)
	if err == nil {
		return nil
	}
	var names []string
	for _, sub := range cmd.Commands() {
		if !sub.Hidden {
			names = append(names, sub.Name())
		}
	}
	return fmt.Errorf("%w%s", err, relayconfig.DidYouMean(args[0], names))
}

// meant adds to an error about a flag that is not there the one that may be
// meant.
func meant(cmd *cobra.Command, err error) error {
	unknown, ok := errors.AsType[*pflag.NotExistError](err)
	if !ok {
		return err
	}
	var names []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, "--"+f.Name) })
	return fmt.Errorf("%w%s", err, relayconfig.DidYouMean("--"+unknown.GetSpecifiedName(), names))
}

// usage makes err a usage error that says where to read on.
func usage(cmd *cobra.Command, err error) error {
	return &usageError{fmt.Errorf("%w (see: %s --help)", err, cmd.CommandPath())}
}

// markUsage makes wrong arguments and missing flags of cmd and of those below
// it usage errors.
func markUsage(cmd *cobra.Command) {
	cmd.PreRunE = func(c *cobra.Command, _ []string) error {
		if err := c.ValidateRequiredFlags(); err != nil {
			return usage(c, err)
		}
		return nil
	}
	if check := cmd.Args; check != nil {
		cmd.Args = func(c *cobra.Command, args []string) error {
			if err := check(c, args); err != nil {
				// cobra says how many arguments there are, and not which.
				if line := strings.TrimSuffix(c.UseLine(), " [flags]"); strings.Contains(err.Error(), "arg(s)") {
					err = fmt.Errorf("%w: %s", err, line)
				}
				return usage(c, err)
			}
			return nil
		}
	}
	for _, sub := range cmd.Commands() {
		markUsage(sub)
	}
}
