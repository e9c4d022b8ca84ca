// Package runner runs a worker with all that it needs: a connection to the
// broker, or a broker of its own; the relays and their caps; health, metrics and
// the HTTP site; and the file of relays, which is read again when it changes.
// `bulkmail worker` is this package with flags and signals around it.
//
// The way of a runner:
//
//  1. options.go: [Options], whose zero values are the documented defaults;
//     problem.go says all that is wrong with them at once.
//  2. [New] checks the options and reads the relays. It opens nothing that must
//     be closed.
//  3. [Runner.Run] takes the steps of steps.go one after the other, works until
//     its context ends, drains, and undoes the steps in reverse order. What is
//     added to a worker as a whole is a step.
//  4. [Runner.Configure], [Runner.Reset] and [Runner.Reload] change relays while
//     it works; [Runner.Status] and [Runner.Ready] tell how it does.
//
// A program may have several runners, each with a name and [metrics.Metrics] of
// its own. A relay of your own is a [relay.Relay] with a [relay.Dialer].
package runner

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"bulkmail/relay"
	relayconfig "bulkmail/relay/config"
	"bulkmail/subjects"
	"bulkmail/worker"
	"bulkmail/worker/fleet"
	"bulkmail/worker/metrics"
)

// An Error is a failure of one part of a [Runner].
type Error struct {
	Part string // the name of a step, as in the list in steps.go: "broker", "relays", …
	Err  error
}

func (e *Error) Error() string { return e.Part + ": " + e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// Errors of a [Runner].
var (
	ErrRunAgain   = errors.New("a runner runs once; make another one")
	ErrNotRunning = errors.New("it is not running; call Run, and wait for Started")
	ErrNoRelay    = errors.New("there is no such relay")
)

// A Runner is a worker with all that it runs on.
type Runner struct {
	o     Options // with their defaults; not changed
	names subjects.Names
	stamp stamp // of the relays file when it was read first

	letters worker.LetterOptions

	ran     atomic.Bool
	asked   chan struct{} // the relays are to be read again
	started chan struct{} // closed when all steps are taken
	parts                 // set by the steps, before started is closed

	mu     sync.Mutex // guards what follows
	own    []relay.Relay
	read   []relay.Config // from RelayURLs and RelaysFile
	relays []relay.Relay  // all of them
	pool   *relay.Pool    // nil: not open
}

// New checks o and reads the relays that it names. An error that is [Problems]
// has all that is wrong with o.
func New(o Options) (*Runner, error) {
	o = o.WithDefaults()
	if o.Metrics == nil {
		o.Metrics = metrics.New(metrics.Build{Go: runtime.Version()})
	}
	r := &Runner{o: o, asked: make(chan struct{}, 1), started: make(chan struct{}), stamp: stampOf(o.RelaysFile)}
	problems := o.problems()
	read, err := o.readRelays()
	if wrong, ok := errors.AsType[Problems](err); ok {
		problems = append(problems, wrong...)
	}
	if problems = append(problems, checkNames(o.Relays, read)...); len(problems) > 0 {
		return nil, problems
	}
	if err != nil {
		return nil, err
	}
	if r.names, err = subjects.New(o.Prefix); err != nil {
		return nil, err
	}
	if r.letters = o.readLetters(&problems); len(problems) > 0 {
		return nil, problems // they have changed meanwhile
	}
	r.own, r.read = slices.Clone(o.Relays), read
	if r.relays, err = o.build(r.own, r.read); err != nil {
		return nil, err
	}
	return r, nil
}

// readRelays reads RelayURLs and RelaysFile. Nothing in them is an error only
// where there are no other relays.
func (o Options) readRelays() ([]relay.Config, error) {
	if o.RelayURLs == "" && o.RelaysFile == "" {
		if len(o.Relays) == 0 {
			return nil, noRelay()
		}
		return nil, nil
	}
	read, err := relayconfig.Load(o.RelayURLs, o.RelaysFile, o.ReadRelays)
	wrong, ok := errors.AsType[relayconfig.Problems](err)
	if !ok {
		return read, err
	}
	var problems Problems
	for i := range wrong {
		problems.addAll(nil, "%s", wrong[i].Error())
	}
	return nil, problems
}

func noRelay() (problems Problems) {
	problems.addRemedy("RelayURLs", "no relay is configured", "set it to the URL of one (smtp://host:25), or %s to a file of relays", "RelaysFile")
	return problems
}

// use makes own and read the relays, as a whole or not at all. Caller holds mu.
func (r *Runner) use(own []relay.Relay, read []relay.Config) (relay.Changes, error) {
	if problems := checkNames(own, read); len(problems) > 0 {
		return relay.Changes{}, problems
	}
	relays, err := r.o.build(own, read)
	if err != nil {
		return relay.Changes{}, err
	}
	r.own, r.read, r.relays = own, read, relays
	if r.pool == nil {
		return relay.Changes{}, nil
	}
	changes := r.pool.Configure(relays)
	if r.worker != nil {
		r.worker.Resume() // it may wait because no relay could take anything
	}
	return changes, nil
}

// checkNames sees that no two relays have one name: counters, caps and outcomes go
// by it.
func checkNames(own []relay.Relay, read []relay.Config) Problems {
	var problems Problems
	taken := make(map[string]bool)
	check := func(name string) {
		switch {
		case name == "":
			problems.add("Relays", "a relay has no name: set Config.Name")
		case taken[name]:
			problems.add("Relays", "two relays are called %s: give each a name of its own", name)
		}
		taken[name] = true
	}
	for i := range own {
		check(own[i].Config.Name)
	}
	for i := range read {
		check(read[i].Name)
	}
	return problems
}

// build makes the dialers of the relays that have none.
func (o Options) build(own []relay.Relay, read []relay.Config) ([]relay.Relay, error) {
	outlets := relay.Outlets{Log: o.Log, Took: o.Metrics.Took, Conversation: o.Conversation}
	relays := make([]relay.Relay, 0, len(own)+len(read))
	for _, one := range own {
		if one.Dialer != nil {
			relays = append(relays, one)
			continue
		}
		built, err := relay.FromConfig([]relay.Config{one.Config}, outlets)
		if err != nil {
			return nil, err
		}
		relays = append(relays, built...)
	}
	built, err := relay.FromConfig(read, outlets)
	return append(relays, built...), err
}

// Run works until ctx ends, and then drains within DrainTimeout. A broker that
// cannot be reached is waited for. All that Run opened is closed when it
// returns, whether it failed or not. It can be called once.
func (r *Runner) Run(ctx context.Context) error {
	if !r.ran.CompareAndSwap(false, true) {
		return &Error{"runner", ErrRunAgain}
	}
	taken, err := r.open(ctx)
	var problems []error
	if err == nil {
		close(r.started)
		if err = r.worker.Run(ctx); err != nil {
			err = &Error{"worker", err}
		}
	}
	problems = append(problems, err)
	for _, s := range slices.Backward(taken) {
		problems = append(problems, s.undo(ctx))
	}
	problems = slices.DeleteFunc(problems, func(err error) bool { return err == nil })
	if len(problems) == 1 {
		return problems[0]
	}
	return errors.Join(problems...)
}

// Started is closed once everything is open: the embedded broker takes
// connections, the HTTP site answers, and the worker begins to work. It stays
// open if Run ends before that.
func (r *Runner) Started() <-chan struct{} { return r.started }

// running tells whether Started is closed.
func (r *Runner) running() bool {
	select {
	case <-r.started:
		return true
	default:
		return false
	}
}

// Configure makes relays those of the worker in the place of [Options.Relays],
// while it works or before. Those of RelayURLs and RelaysFile stay beside them.
// Counters and sessions of a relay whose name is the same stay. Before the
// worker has started, nothing is told of changes.
func (r *Runner) Configure(relays []relay.Relay) (relay.Changes, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(relays)+len(r.read) == 0 {
		return relay.Changes{}, noRelay()
	}
	return r.use(slices.Clone(relays), r.read)
}

// Reload reads RelayURLs and RelaysFile again soon, as happens by itself when
// the file changes. What came of it is logged.
func (r *Runner) Reload() {
	select {
	case r.asked <- struct{}{}:
	default: // somebody has asked already
	}
}

// Reset sets the counters of a relay to zero for all workers that send over it,
// wakes it up, and gives it another chance if it is parked or worthless, as
// `bulkmail relays reset` does.
func (r *Runner) Reset(ctx context.Context, name string) error {
	if !r.running() {
		return &Error{"relays", ErrNotRunning}
	}
	r.mu.Lock()
	known := slices.ContainsFunc(r.relays, func(one relay.Relay) bool { return one.Config.Name == name })
	r.mu.Unlock()
	if !known {
		return &Error{"relays", fmt.Errorf("%s: %w", name, ErrNoRelay)}
	}
	ledgers, err := r.js.KeyValue(ctx, r.names.RelayBucket())
	if err == nil {
		err = fleet.Reset(ctx, ledgers, name)
	}
	if err != nil {
		return &Error{"relays", err}
	}
	return nil
}

// Status is how a [Runner] does.
type Status struct {
	Name    string // of the worker
	State   worker.State
	Batches int            // in hand
	Relays  []relay.Status // in their order; none before it has started
	Broker  string         // where it is, without what logs in; empty before it has started
	HTTP    string         // the address that answers; empty: none, or not yet
}

// Status tells how the runner does.
func (r *Runner) Status() Status {
	s := Status{Name: r.o.Name}
	if !r.running() {
		return s
	}
	s.State, s.Batches = r.worker.State(), r.worker.InHand()
	s.Broker = RedactURLs(r.broker)
	if r.site != nil {
		s.HTTP = r.site.addr
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pool != nil {
		s.Relays = r.pool.Status()
	}
	return s
}

// starting is what keeps a worker from working that is not made yet.
const starting = "worker: starting"

// Ready has a line for each thing that keeps the worker from working, as
// /readyz has; none: it is ready.
func (r *Runner) Ready(ctx context.Context) []string {
	if !r.running() {
		return []string{starting}
	}
	return r.checks.Ready(ctx)
}
