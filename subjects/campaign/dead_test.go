package campaign_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bulkmail/subjects"
	"bulkmail/subjects/campaign"
)

const fullLetter = `{"id":"full","from":"news@example.com","recipients":["ann@full.test","bob@full.test"],"message":"Subject: t\n\nhi\n"}`

func (h *fixture) letters(name string) (all []campaign.DeadLetter) {
	h.t.Helper()
	for l, err := range h.DeadLetters(h.t.Context(), name) {
		if err != nil {
			h.t.Fatal(err)
		}
		if time.Since(l.Time) > time.Hour {
			h.t.Errorf("letter %d is of %v", l.Number, l.Time)
		}
		l.Time = time.Time{}
		all = append(all, l)
	}
	return all
}

func TestDeadLettersAreListedWithTheirReasons(t *testing.T) {
	t.Parallel()
	h := newFixture(t, campaign.Options{})
	if all := h.letters(""); len(all) != 0 {
		t.Errorf("before: %v", all)
	}
	h.bury("news", "b1", subjects.CauseUnreadable, "{")
	h.bury("other", "full", subjects.CauseExpired, fullLetter)
	want := []campaign.DeadLetter{
		{Number: 1, Campaign: "news", Batch: "b1", Cause: "unreadable", Codes: "452", Reason: "why b1", Data: []byte("{")},
		{Number: 2, Campaign: "other", Batch: "full", Cause: "expired", Codes: "452", Reason: "why full", Recipients: 2, Data: []byte(fullLetter)},
	}
	if diff := cmp.Diff(want, h.letters("")); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(want[1:], h.letters("other")); diff != "" {
		t.Error(diff)
	}
	one, err := h.DeadLetter(t.Context(), 2)
	if one.Time = (time.Time{}); err != nil || cmp.Diff(want[1], one) != "" {
		t.Errorf("%+v, %v", one, err)
	}
	for _, err := range h.DeadLetters(t.Context(), "a.b") {
		if err == nil {
			t.Error("a name that cannot be has dead letters")
		}
	}
	h.leavesNothing("DeadLetters")
}

func TestADeadLetterIsPublishedAgainAsABatchOfItsOwn(t *testing.T) {
	t.Parallel()
	h := newFixture(t, campaign.Options{})
	h.bury("news", "full", subjects.CauseExpired, fullLetter)
	h.bury("news", strings.Repeat("x", 64), subjects.CauseExpired, fullLetter)
	h.bury("news", "no id", subjects.CauseUnreadable, fullLetter)
	for n, want := range map[uint64]string{1: "full-r1", 2: strings.Repeat("x", 61) + "-r2", 3: "dead-r3"} {
		l, batch, err := h.RetryDead(t.Context(), n)
		if err != nil || batch != want || l.Number != n || l.Recipients != 2 {
			t.Errorf("letter %d is batch %s, %+v, %v", n, batch, l, err)
		}
	}
	batches, _ := h.queued("news")
	var ids []string
	for _, b := range batches {
		ids = append(ids, b.ID)
		if b.From != "news@example.com" || len(b.Recipients) != 2 {
			t.Errorf("a batch is %+v", b)
		}
	}
	if len(ids) != 3 || len(h.letters("")) != 0 {
		t.Errorf("in the queue: %v; still dead: %v", ids, h.letters(""))
	}
}

func TestADeadLetterThatCannotBeReadStays(t *testing.T) {
	t.Parallel()
	h := newFixture(t, campaign.Options{})
	h.bury("news", "b1", subjects.CauseUnreadable, "{")
	if _, _, err := h.RetryDead(t.Context(), 1); err == nil || !strings.HasPrefix(err.Error(), "dead letter 1: it cannot be read (") {
		t.Errorf("error is %v", err)
	}
	if len(h.letters("")) != 1 {
		t.Error("it is gone")
	}
	if err := h.DropDead(t.Context(), 1); err != nil {
		t.Error(err)
	}
	if len(h.letters("")) != 0 {
		t.Error("it is still there")
	}
	_, show := h.DeadLetter(t.Context(), 1)
	_, _, retry := h.RetryDead(t.Context(), 1)
	for _, err := range []error{h.DropDead(t.Context(), 1), show, retry} {
		if !errors.Is(err, campaign.ErrNoDeadLetter) || err.Error() != "there is no dead letter 1" {
			t.Errorf("error is %v", err)
		}
	}
}
