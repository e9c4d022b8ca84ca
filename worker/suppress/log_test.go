package suppress_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"bulkmail/subjects"
	"bulkmail/subjects/broker/brokertest"
	"bulkmail/testdata/testrun"
	"bulkmail/worker/suppress"
)

func TestMain(m *testing.M) {
	testrun.AtOnce(6)
	goleak.VerifyTestMain(m)
}

var names subjects.Names

func open(t *testing.T) jetstream.JetStream {
	t.Helper()
	js := brokertest.Connect(t, brokertest.Start(t).URL())
	provision(t, js)
	return js
}

func provision(t *testing.T, js jetstream.JetStream) {
	t.Helper()
	if err := subjects.Provision(t.Context(), js, names, subjects.Options{AckWait: 30 * time.Second}, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
}

func add(scope, why string, until time.Time, names ...string) subjects.SuppressionChange {
	return subjects.SuppressionChange{Op: subjects.Suppress, Scope: scope, Why: why, Until: until, Names: names}
}

func remove(scope string, names ...string) subjects.SuppressionChange {
	return subjects.SuppressionChange{Op: subjects.Release, Scope: scope, Names: names}
}

func write(t *testing.T, js jetstream.JetStream, changes ...subjects.SuppressionChange) {
	t.Helper()
	for _, c := range changes {
		if err := suppress.Append(t.Context(), js, names, c); err != nil {
			t.Fatal(err)
		}
	}
}

// follow follows the log until the test ends.
func follow(t *testing.T, js jetstream.JetStream) *suppress.Follower {
	t.Helper()
	f := suppress.NewFollower(js, names, slog.New(slog.DiscardHandler))
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { f.Run(ctx) })
	t.Cleanup(func() {
		stop()
		running.Wait()
	})
	select {
	case <-f.Known():
	case <-time.After(waitAtMost):
		t.Fatal("the log is not known")
	}
	return f
}

const waitAtMost = time.Minute

// until waits for what a follower does by itself.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(waitAtMost); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not: " + what)
		}
	}
}

func TestASetFollowsTheLog(t *testing.T) {
	t.Parallel()
	js := open(t)
	write(t, js, add("bulk", "complained", time.Time{}, "ann@example.net", "bob@example.net"), remove("", "bob@example.net"))
	set := follow(t, js).Set()
	if why, ok := set.Has("Ann@example.net", time.Now(), suppress.Bulk); why != "complained" || !ok || set.Len() != 1 {
		t.Errorf("at first %q, %t, %d entries", why, ok, set.Len())
	}
	write(t, js, add("list:news", "unsubscribed", time.Time{}, "bob@example.net"), add("all", "gone", time.Time{}, "@dead.example"), remove("bulk", "ann@example.net"))
	until(t, "two entries", func() bool { return set.Len() == 2 && set.Version() >= 6 })
	_, listed := set.Has("bob@example.net", time.Now(), set.Scope("news"))
	_, dead := set.Has("x@dead.example", time.Now(), suppress.All)
	_, back := set.Has("ann@example.net", time.Now(), suppress.All, suppress.Bulk)
	if !listed || !dead || back {
		t.Errorf("listed %t, dead %t, back %t", listed, dead, back)
	}
}

func TestAChangeNobodyCanReadKeepsNoOtherFromBeingKnown(t *testing.T) {
	t.Parallel()
	js := open(t)
	for _, data := range []string{"{", `{"op":"forgive","names":["ann@example.net"]}`} {
		if _, err := js.Publish(t.Context(), names.Suppressions(), []byte(data)); err != nil {
			t.Fatal(err)
		}
	}
	write(t, js, add("bulk", "complained", time.Time{}, "ann@example.net"))
	if n := follow(t, js).Set().Len(); n != 1 {
		t.Errorf("%d entries", n)
	}
	for _, err := range suppress.Changes(t.Context(), js, names) {
		if wrong, ok := errors.AsType[*suppress.ChangeError](err); !ok || wrong.Sequence != 1 {
			t.Errorf("who reads the log is told %v", err)
		}
	}
}

func TestALogWhoseLastChangeIsDeletedIsKnown(t *testing.T) {
	t.Parallel()
	js := open(t)
	for i := range 3 {
		write(t, js, add("bulk", "x", time.Time{}, fmt.Sprintf("%d@example.net", i)))
	}
	stream, err := js.Stream(t.Context(), names.SuppressionStream())
	if err == nil {
		err = stream.DeleteMsg(t.Context(), 3)
	}
	if err != nil {
		t.Fatal(err)
	}
	if n := follow(t, js).Set().Len(); n != 2 {
		t.Errorf("%d entries", n)
	}
	n := 0
	for _, err := range suppress.Changes(t.Context(), js, names) {
		if n++; err != nil {
			t.Error(err)
		}
	}
	if n != 2 {
		t.Errorf("%d changes are read", n)
	}
}

// Somebody restores the stream from a backup.
func TestWhoWasSuppressedStaysSoWhenTheLogIsMadeAnew(t *testing.T) {
	t.Parallel()
	js := open(t)
	write(t, js, add("bulk", "x", time.Time{}, "ann@example.net"), add("bulk", "x", time.Time{}, "bob@example.net"))
	f := follow(t, js)
	if err := js.DeleteStream(t.Context(), names.SuppressionStream()); err != nil {
		t.Fatal(err)
	}
	until(t, "it is said that the set lags", func() bool { return f.Behind() > 0 })
	provision(t, js)
	write(t, js, add("bulk", "x", time.Time{}, "eve@example.net"))
	until(t, "the new log is known", func() bool { return f.Set().Len() == 3 && f.Behind() == 0 })
}

func TestABookSaysWhatTheLogComesTo(t *testing.T) {
	t.Parallel()
	day := time.Date(2026, 11, 25, 0, 0, 0, 0, time.UTC)
	changes := []subjects.SuppressionChange{
		add("bulk", "bounced", day.Add(time.Hour), "Ann@example.net", "bob@example.net"),
		add("bulk", "complained", day.Add(2*time.Hour), "ann@example.net"),
		add("bulk", "bounced", day.Add(time.Hour), "ann@example.net"), // ends earlier
		add("all", "asked", time.Time{}, "ann@example.net"),
		add("all", "again", time.Time{}, "ann@example.net"),
		add("list:a", "unsubscribed", time.Time{}, "bob@example.net", "eve@example.net"),
		remove("list:a", "EVE@example.net", "nobody@example.net"),
		remove("", "Bob@example.net"),
		add("bulk", "gone", time.Time{}, "@dead.example"),
	}
	all, ann := suppress.NewBook(), suppress.NewBook("ANN@example.net")
	for i := range changes {
		all.Apply(&changes[i])
		ann.Apply(&changes[i])
	}
	want := []suppress.Entry{
		{Name: "ann@example.net", Scope: "bulk", Why: "complained", Until: day.Add(2 * time.Hour)},
		{Name: "ann@example.net", Scope: "all", Why: "asked"},
	}
	if diff := cmp.Diff(want, ann.Of("Ann@Example.net")); diff != "" {
		t.Errorf("ann -want +got\n%s", diff)
	}
	dead := suppress.Entry{Name: "@dead.example", Scope: "bulk", Why: "gone"}
	if diff := cmp.Diff(append([]suppress.Entry{dead}, want...), slices.Collect(all.All(day))); diff != "" {
		t.Errorf("all -want +got\n%s", diff)
	}
	if diff := cmp.Diff([]suppress.Entry{dead, want[1]}, slices.Collect(all.All(day.Add(2*time.Hour)))); diff != "" {
		t.Errorf("later -want +got\n%s", diff)
	}
	if len(slices.Collect(ann.All(day))) != 2 {
		t.Error("a book about ann knows of others")
	}
}

func TestManyNamesAreStoredInOrderWhateverTheirLength(t *testing.T) {
	t.Parallel()
	js := brokertest.Connect(t, brokertest.StartSmall(t, 8<<10))
	provision(t, js)
	var many []string
	for i := range 2500 {
		many = append(many, fmt.Sprintf("somebody.with.a.long.name.%d@example.net", i))
	}
	write(t, js, add("bulk", "x", time.Time{}, many...))
	var got []string
	for c, err := range suppress.Changes(t.Context(), js, names) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, c.Names...)
	}
	if diff := cmp.Diff(many, got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestNamesAreMailboxesAndDomains(t *testing.T) {
	t.Parallel()
	for given, want := range map[string]string{
		"ann@Example.NET": "ann@example.net", "Ann.Lee@example.net": "Ann.Lee@example.net", "@Example.net": "@example.net",
		"*@bücher.example": "@xn--bcher-kva.example", "ann": "", "@": "", "": "", "@a b": "", "ann@@example.net": "", "*": "", "Ann <ann@example.net>": "",
	} {
		if got, err := suppress.ParseName(given); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", given, got, err)
		}
	}
	for scope, ok := range map[string]bool{"bulk": true, "all": true, "list:weekly": true, "list:": false, "list:a b": false, "weekly": false, "": false} {
		if _, err := suppress.ParseScope(scope); (err == nil) != ok {
			t.Errorf("%q: %v", scope, err)
		}
	}
}
