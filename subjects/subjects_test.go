package subjects_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"bulkmail/subjects"
)

// names returns everything that is derived from a prefix.
func names(n subjects.Names) map[string]string {
	return map[string]string{
		"batches":             n.Batches("spring"),
		"outcomes":            n.Outcomes("spring", "0001"),
		"campaign outcomes":   n.CampaignOutcomes("spring"),
		"dead":                n.Dead("spring"),
		"batches stream":      n.BatchesStream(),
		"outcomes stream":     n.OutcomesStream(),
		"dead stream":         n.DeadStream(),
		"feedback":            n.Feedback("spring", subjects.Unsubscribed),
		"feedback stream":     n.FeedbackStream(),
		"suppressions":        n.Suppressions(),
		"suppressions stream": n.SuppressionStream(),
		"messages":            n.MessageStore(),
		"campaigns":           n.CampaignBucket(),
		"relays":              n.RelayBucket(),
	}
}

func TestNamesAreThoseOfTheContract(t *testing.T) {
	t.Parallel()
	want := map[string]string{
		"batches":             "bulkmail.batches.spring",
		"outcomes":            "bulkmail.outcomes.spring.0001",
		"campaign outcomes":   "bulkmail.outcomes.spring.*",
		"dead":                "bulkmail.dead.spring",
		"batches stream":      "BULKMAIL_BATCHES",
		"outcomes stream":     "BULKMAIL_OUTCOMES",
		"dead stream":         "BULKMAIL_DEAD",
		"feedback":            "bulkmail.feedback.spring.unsubscribed",
		"feedback stream":     "BULKMAIL_FEEDBACK",
		"suppressions":        "bulkmail.suppressions",
		"suppressions stream": "BULKMAIL_SUPPRESSIONS",
		"messages":            "bulkmail-messages",
		"campaigns":           "bulkmail-campaigns",
		"relays":              "bulkmail-relays",
	}
	if diff := cmp.Diff(want, names(subjects.Names{})); diff != "" {
		t.Errorf("without a prefix:\n%s", diff)
	}
	other, err := subjects.New("news")
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range want {
		v = strings.Replace(v, "BULKMAIL", "NEWS", 1)
		want[k] = strings.Replace(v, "bulkmail", "news", 1)
	}
	if diff := cmp.Diff(want, names(other)); diff != "" {
		t.Errorf("with the prefix news:\n%s", diff)
	}
}

func TestAPrefixThatIsNoTokenIsRefused(t *testing.T) {
	t.Parallel()
	for _, prefix := range []string{"", "a.b", "a b", "a*", ">", "ä", strings.Repeat("x", 65)} {
		if _, err := subjects.New(prefix); err == nil || !strings.Contains(err.Error(), "letters, digits") {
			t.Errorf("prefix %q: error %v does not say what to use", prefix, err)
		}
	}
}

func TestASubjectTellsItsCampaignAndBatch(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		id := rapid.StringMatching(`[A-Za-z0-9_-]{1,64}`)
		prefix, campaign, batch := id.Draw(t, "prefix"), id.Draw(t, "campaign"), id.Draw(t, "batch")
		n, err := subjects.New(prefix)
		if err != nil {
			t.Fatal(err)
		}
		for subject, want := range map[string][2]string{
			n.Batches(campaign):         {campaign, ""},
			n.Dead(campaign):            {campaign, ""},
			n.Outcomes(campaign, batch): {campaign, batch},
		} {
			if c, b := n.Campaign(subject); c != want[0] || b != want[1] {
				t.Errorf("%s: campaign %q, batch %q", subject, c, b)
			}
		}
	})
}

func TestABatchHasTheIDItWasGivenElseItsMessageIDElseItsPlace(t *testing.T) {
	t.Parallel()
	stored := time.Date(2026, 11, 23, 22, 48, 37, 5, time.UTC)
	for _, c := range []struct{ name, id, msgID, want string }{
		{"field", "0001", "other", "0001"},
		{"header", "", "msg-1", "msg-1"},
		{"header that is no token", "", "a b.c", ""},
		{"place", "", "", "7-"},
	} {
		got := subjects.BatchID(c.id, c.msgID, 7, stored)
		switch {
		case !subjects.ValidID(got):
			t.Errorf("%s: %q cannot be a token", c.name, got)
		case c.msgID == "a b.c":
			if len(got) != 32 || got != subjects.BatchID("", c.msgID, 8, stored.Add(1)) {
				t.Errorf("%s: %q is not the header's hash", c.name, got)
			}
		case !strings.HasPrefix(got, c.want):
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
	if subjects.BatchID("", "", 7, stored) == subjects.BatchID("", "", 7, stored.Add(1)) {
		t.Error("a stream made anew would meet the journals of the old one")
	}
	if subjects.BatchID("", "a b", 7, stored) == subjects.BatchID("", "a.b", 7, stored) {
		t.Error("two message ids are one batch")
	}
}

func TestIDsAreTokensOfNATS(t *testing.T) {
	t.Parallel()
	for id, want := range map[string]bool{
		"a": true, "0001": true, "Spring_Sale-2026": true, strings.Repeat("x", 64): true,
		"": false, strings.Repeat("x", 65): false, "a.b": false, "*": false, ">": false, "a b": false, "é": false, "a\n": false, "a/b": false,
	} {
		if subjects.ValidID(id) != want {
			t.Errorf("%q: valid is %v", id, !want)
		}
	}
}
