package broker_test

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"bulkmail/subjects/broker"
)

func start(t *testing.T, listen, dir string) *broker.Server {
	t.Helper()
	s, err := broker.Start(t.Context(), broker.Options{Listen: listen, Dir: dir, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestWhatWasStoredIsThereAfterARestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, wantMsgs := range []uint64{1, 2} {
		s := start(t, "127.0.0.1:0", dir)
		nc, err := nats.Connect(s.URL())
		if err != nil {
			t.Fatal(err)
		}
		js, err := jetstream.New(nc)
		if err != nil {
			t.Fatal(err)
		}
		stream, err := js.CreateOrUpdateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := js.Publish(t.Context(), "s", nil); err != nil {
			t.Fatal(err)
		}
		info, err := stream.Info(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if info.State.Msgs != wantMsgs {
			t.Errorf("%d messages in the stream, want %d", info.State.Msgs, wantMsgs)
		}
		nc.Close()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestASecondBrokerOnTheSameFolderIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first := start(t, "127.0.0.1:0", dir)
	_, err := broker.Start(t.Context(), broker.Options{Listen: "127.0.0.1:0", Dir: dir, Log: slog.New(slog.DiscardHandler)})
	if !errors.Is(err, broker.ErrFolderInUse) {
		t.Errorf("got error %v, want %v", err, broker.ErrFolderInUse)
	}
	if e, ok := errors.AsType[*broker.FolderError](err); !ok || e.Dir != dir || e.URL != first.URL() {
		t.Errorf("%#v does not say that %s is where to go", err, first.URL())
	}
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	second := start(t, "127.0.0.1:0", dir) // the lock went with the first
	if err := second.Close(); err != nil {
		t.Error(err)
	}
}

func TestASecondBrokerOnTheSameAddressIsRefusedAndLeavesItsFolderFree(t *testing.T) {
	t.Parallel()
	first := start(t, "127.0.0.1:0", t.TempDir())
	defer func() {
		if err := first.Close(); err != nil {
			t.Error(err)
		}
	}()
	dir := t.TempDir()
	address := first.URL()[len("nats://"):]
	_, err := broker.Start(t.Context(), broker.Options{Listen: address, Dir: dir, Log: slog.New(slog.DiscardHandler)})
	if !errors.Is(err, broker.ErrAddressInUse) {
		t.Errorf("got error %v, want %v", err, broker.ErrAddressInUse)
	}
	if err := start(t, "127.0.0.1:0", dir).Close(); err != nil {
		t.Error(err)
	}
}

func TestAFolderThatCannotBeUsedIsAnErrorAtOnce(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := broker.Start(t.Context(), broker.Options{Listen: "127.0.0.1:0", Dir: file, Log: slog.New(slog.DiscardHandler)})
	if err == nil {
		t.Error("a broker started on a file")
	}
}

func TestAnAddressThatIsNoneIsNamedInTheError(t *testing.T) {
	t.Parallel()
	for _, listen := range []string{"", "4222", "localhost:nats", "127.0.0.1:70000"} {
		if _, err := broker.Start(t.Context(), broker.Options{Listen: listen, Dir: t.TempDir(), Log: slog.New(slog.DiscardHandler)}); err == nil {
			t.Errorf("a broker started on %q", listen)
		}
	}
}
