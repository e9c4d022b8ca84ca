package subjects_test

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"

	"bulkmail/subjects"
	"bulkmail/subjects/broker/brokertest"
)

// connect starts a broker without anything on it.
func connect(t *testing.T) jetstream.JetStream {
	t.Helper()
	return brokertest.Connect(t, brokertest.Start(t).URL())
}

var settings = subjects.Options{AckWait: 20 * time.Second, OutcomesMaxAge: 48 * time.Hour}

// provision makes what is missing and returns what was logged.
func provision(t *testing.T, js jetstream.JetStream, o subjects.Options) string {
	t.Helper()
	var log bytes.Buffer
	if err := subjects.Provision(t.Context(), js, subjects.Names{}, o, slog.New(slog.NewTextHandler(&log, nil))); err != nil {
		t.Fatal(err)
	}
	return log.String()
}

func TestWhatIsMissingIsMade(t *testing.T) {
	t.Parallel()
	js := connect(t)
	if log := provision(t, js, settings); log != "" {
		t.Errorf("an empty broker is nothing to warn of: %s", log)
	}
	type stream struct {
		Subjects  []string
		Retention jetstream.RetentionPolicy
		Storage   jetstream.StorageType
		MaxAge    time.Duration
		Replicas  int
		Direct    bool
	}
	want := map[string]stream{
		"BULKMAIL_BATCHES":      {[]string{"bulkmail.batches.*"}, jetstream.WorkQueuePolicy, jetstream.FileStorage, 0, 1, true},
		"BULKMAIL_OUTCOMES":     {[]string{"bulkmail.outcomes.*.*"}, jetstream.LimitsPolicy, jetstream.FileStorage, 48 * time.Hour, 1, true},
		"BULKMAIL_DEAD":         {[]string{"bulkmail.dead.*"}, jetstream.LimitsPolicy, jetstream.FileStorage, 0, 1, true},
		"BULKMAIL_FEEDBACK":     {[]string{"bulkmail.feedback.*.*"}, jetstream.LimitsPolicy, jetstream.FileStorage, 48 * time.Hour, 1, true},
		"BULKMAIL_SUPPRESSIONS": {[]string{"bulkmail.suppressions"}, jetstream.LimitsPolicy, jetstream.FileStorage, 0, 1, true},
	}
	got := make(map[string]stream)
	for name := range want {
		s, err := js.Stream(t.Context(), name)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		c := s.CachedInfo().Config
		got[name] = stream{c.Subjects, c.Retention, c.Storage, c.MaxAge, c.Replicas, c.AllowDirect}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("streams -want +got\n%s", diff)
	}
	consumer, err := js.Consumer(t.Context(), "BULKMAIL_BATCHES", "workers")
	if err != nil {
		t.Fatal(err)
	}
	c := consumer.CachedInfo().Config
	if c.AckPolicy != jetstream.AckExplicitPolicy || c.AckWait != settings.AckWait || c.MaxDeliver != -1 || c.MaxAckPending != -1 || len(c.BackOff) != 0 {
		t.Errorf("the consumer could lose or block batches: %+v", c)
	}
	for _, bucket := range []string{"bulkmail-campaigns", "bulkmail-relays"} {
		if _, err := js.KeyValue(t.Context(), bucket); err != nil {
			t.Errorf("%s: %v", bucket, err)
		}
	}
	if _, err := js.ObjectStore(t.Context(), "bulkmail-messages"); err != nil {
		t.Error(err)
	}
}

func TestWhatIsThereAsWantedIsNotSpokenOf(t *testing.T) {
	t.Parallel()
	js := connect(t)
	provision(t, js, settings)
	if log := provision(t, js, settings); log != "" {
		t.Errorf("a second start warns: %s", log)
	}
}

func TestWhatDiffersIsToldAndLeftAsItIs(t *testing.T) {
	t.Parallel()
	js := connect(t)
	provision(t, js, settings)
	log := provision(t, js, subjects.Options{AckWait: time.Minute, OutcomesMaxAge: time.Hour})
	for _, say := range []string{
		"level=WARN", "stream=BULKMAIL_OUTCOMES", `max_age="48h0m0s, not 1h0m0s"`,
		"consumer=workers", `ack_wait="20s, not 1m0s"`,
	} {
		if !strings.Contains(log, say) {
			t.Errorf("%s is not said in\n%s", say, log)
		}
	}
	if strings.Contains(log, "BULKMAIL_DEAD") || strings.Contains(log, "BULKMAIL_BATCHES") {
		t.Errorf("what does not differ is spoken of in\n%s", log)
	}
	s, err := js.Stream(t.Context(), "BULKMAIL_OUTCOMES")
	if err != nil {
		t.Fatal(err)
	}
	c, err := js.Consumer(t.Context(), "BULKMAIL_BATCHES", "workers")
	if err != nil {
		t.Fatal(err)
	}
	if s.CachedInfo().Config.MaxAge != 48*time.Hour || c.CachedInfo().Config.AckWait != 20*time.Second {
		t.Error("what was there was changed")
	}
}

func TestBatchesPublishedBeforeAWorkerStartedArePartOfTheQueue(t *testing.T) {
	t.Parallel()
	js := connect(t)
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{
		Name: "BULKMAIL_BATCHES", Subjects: []string{"bulkmail.batches.*"}, Retention: jetstream.WorkQueuePolicy,
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(t.Context(), "bulkmail.batches.c", []byte("{}")); err != nil {
		t.Fatal(err)
	}
	log := provision(t, js, settings)
	if !strings.Contains(log, `allow_direct="false, not true"`) {
		t.Errorf("that the stream is not ours is not said: %s", log)
	}
	c, err := js.Consumer(t.Context(), "BULKMAIL_BATCHES", "workers")
	if err != nil {
		t.Fatal(err)
	}
	if n := c.CachedInfo().NumPending; n != 1 {
		t.Errorf("%d batches wait, want the one that was there", n)
	}
}

func TestSeveralWorkersMayMakeEverythingAtOnce(t *testing.T) {
	t.Parallel()
	js := connect(t)
	errs := make(chan error)
	for range 4 {
		go func() {
			errs <- subjects.Provision(t.Context(), js, subjects.Names{}, settings, slog.New(slog.DiscardHandler))
		}()
	}
	for range 4 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}

func TestAConsumerOfAnotherKindInTheWayIsAnErrorThatNamesIt(t *testing.T) {
	t.Parallel()
	js := connect(t)
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{
		Name: "BULKMAIL_BATCHES", Subjects: []string{"bulkmail.batches.*"}, Retention: jetstream.WorkQueuePolicy,
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateConsumer(t.Context(), "BULKMAIL_BATCHES", jetstream.ConsumerConfig{Durable: "mine", AckPolicy: jetstream.AckExplicitPolicy}); err != nil {
		t.Fatal(err)
	}
	err := subjects.Provision(t.Context(), js, subjects.Names{}, settings, slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), "consumer workers of BULKMAIL_BATCHES") {
		t.Errorf("error %v", err)
	}
}

func TestAllThatWasMadeCanBeRemoved(t *testing.T) {
	t.Parallel()
	js := connect(t)
	others, err := subjects.New("others")
	if err != nil {
		t.Fatal(err)
	}
	if err := subjects.Provision(t.Context(), js, others, settings, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	count := func() int {
		names := js.StreamNames(t.Context())
		n := 0
		for range names.Name() {
			n++
		}
		if err := names.Err(); err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := count()
	provision(t, js, settings)
	if count() == before {
		t.Fatal("nothing was made")
	}
	for range 2 { // also what is gone
		if err := subjects.Remove(t.Context(), js, subjects.Names{}); err != nil {
			t.Fatal(err)
		}
		if n := count(); n != before {
			t.Errorf("%d streams are left, %d are others'", n, before)
		}
	}
}
