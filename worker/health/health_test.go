package health_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bulkmail/relay"
	"bulkmail/subjects"
	"bulkmail/worker"
	"bulkmail/worker/health"
)

// A desk is a worker as it looks from outside.
type desk struct {
	state  worker.State
	relays []relay.State
	lame   bool // no journals
	behind time.Duration
}

func (d desk) State() worker.State              { return d.state }
func (d desk) KeepsJournals() bool              { return !d.lame }
func (d desk) Suppressed() (int, time.Duration) { return 0, d.behind }
func (d desk) Status() []relay.Status {
	all := make([]relay.Status, len(d.relays))
	for i, s := range d.relays {
		all[i].State = s
	}
	return all
}

func TestEverythingThatKeepsAWorkerFromWorkingIsALine(t *testing.T) {
	t.Parallel()
	js := connect(t)
	var names subjects.Names
	provision(t, js, names)
	b := health.NewBroker(js, names)
	for _, test := range []struct {
		name string
		desk desk
		want []string
	}{
		{"all is well", desk{state: worker.Working, relays: []relay.State{relay.Awake}}, nil},
		{"one of two relays is enough", desk{state: worker.Working, relays: []relay.State{relay.Parked, relay.Awake}}, nil},
		{"a relay at a limit does as it was told", desk{state: worker.Working, relays: []relay.State{relay.Parked, relay.Exhausted}}, nil},
		{"nothing has been sent yet", desk{state: worker.Working, relays: []relay.State{relay.Untried}}, nil},
		{"asleep", desk{state: worker.Working, relays: []relay.State{relay.Asleep}}, nil},
		{"paced", desk{state: worker.Working, relays: []relay.State{relay.Paced}}, nil},
		{"starting", desk{state: worker.Starting, relays: []relay.State{relay.Awake}}, []string{"worker: starting"}},
		{"draining", desk{state: worker.Draining, relays: []relay.State{relay.Awake}}, []string{"worker: draining"}},
		{"ended", desk{state: worker.Ended, relays: []relay.State{relay.Awake}}, []string{"worker: ended"}},
		{"no journal", desk{state: worker.Working, relays: []relay.State{relay.Awake}, lame: true}, []string{"journal: cannot be kept"}},
		{"suppressions lag", desk{state: worker.Working, relays: []relay.State{relay.Awake}, behind: 5 * time.Second},
			[]string{"suppressions: not known to be those of the broker for 5s"}},
		{"no relay", desk{state: worker.Working}, []string{"relays: none is configured"}},
		{"no relay works", desk{state: worker.Draining, relays: []relay.State{relay.Worthless, relay.Parked, relay.Worthless}},
			[]string{"worker: draining", "relays: none of 3 can be used: 1 parked, 2 worthless"}},
	} {
		c := health.Checks{Conn: js.Conn(), Worker: test.desk, Relays: test.desk, Broker: b}
		if diff := cmp.Diff(test.want, c.Ready(t.Context())); diff != "" {
			t.Errorf("%s: %s", test.name, diff)
		}
	}
	js.Conn().Close()
	c := health.Checks{Conn: js.Conn(), Worker: desk{state: worker.Working}, Relays: desk{}, Broker: b}
	if diff := cmp.Diff([]string{"broker: not reached", "relays: none is configured"}, c.Ready(t.Context())); diff != "" {
		t.Error(diff)
	}
}
