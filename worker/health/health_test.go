package health_test

import (
	"testing"

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
}

func (d desk) State() worker.State { return d.state }
func (d desk) KeepsJournals() bool { return !d.lame }
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
		{"all is well", desk{worker.Working, []relay.State{relay.Awake}, false}, nil},
		{"one of two relays is enough", desk{worker.Working, []relay.State{relay.Parked, relay.Awake}, false}, nil},
		{"a relay at a limit does as it was told", desk{worker.Working, []relay.State{relay.Parked, relay.Exhausted}, false}, nil},
		{"asleep", desk{worker.Working, []relay.State{relay.Asleep}, false}, nil},
		{"paced", desk{worker.Working, []relay.State{relay.Paced}, false}, nil},
		{"starting", desk{worker.Starting, []relay.State{relay.Awake}, false}, []string{"worker: starting"}},
		{"draining", desk{worker.Draining, []relay.State{relay.Awake}, false}, []string{"worker: draining"}},
		{"ended", desk{worker.Ended, []relay.State{relay.Awake}, false}, []string{"worker: ended"}},
		{"no journal", desk{worker.Working, []relay.State{relay.Awake}, true}, []string{"journal: cannot be kept"}},
		{"no relay", desk{worker.Working, nil, false}, []string{"relays: none is configured"}},
		{"no relay works", desk{worker.Draining, []relay.State{relay.Worthless, relay.Parked, relay.Worthless}, false},
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
