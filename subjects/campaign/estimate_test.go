package campaign_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"bulkmail/subjects/campaign"
)

func TestAnEstimateSaysWhatAPublicationWouldBe(t *testing.T) {
	t.Parallel()
	p := news(listOf("ann@example.net\nbob@@example.net\n" + numbered(0, 250) + "r0@D0.test\nann@EXAMPLE.net\n"))
	got, err := p.Estimate(50)
	if err != nil {
		t.Fatal(err)
	}
	// 84, 83 and 83 recipients of three domains, 50 an envelope, and one alone.
	const envelopes = 7
	wire := len(strings.ReplaceAll(message, "\n", "\r\n"))
	bytes := envelopes * (len("MAIL FROM:<news@example.com>\r\nDATA\r\n.\r\n") + wire)
	for r := range strings.FieldsSeq("ann@example.net " + numbered(0, 250)) {
		bytes += len("RCPT TO:<" + r + ">\r\n")
	}
	want := campaign.Estimate{
		Recipients: 251, Doubles: 2, Envelopes: envelopes, Bytes: int64(bytes),
		Unusable: []campaign.Unusable{{Line: 2, Text: "bob@@example.net", Reason: "more than one @"}},
		Domains:  []campaign.DomainCount{{Domain: "d0.test", Recipients: 84}, {Domain: "d1.test", Recipients: 83}, {Domain: "d2.test", Recipients: 83}, {Domain: "example.net", Recipients: 1}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	p.List = listOf(numbered(0, 250))
	if got, err := p.Estimate(0); err != nil || got.Envelopes != 3 {
		t.Errorf("without a limit: %+v, %v", got, err)
	}
}

func TestAnEstimateRefusesWhatPublishWould(t *testing.T) {
	t.Parallel()
	p := news(listOf("# nobody\n"))
	if _, err := p.Estimate(100); !errors.Is(err, campaign.ErrEmptyList) {
		t.Errorf("of nobody: %v", err)
	}
	p = news(listOf(numbered(0, 3)))
	p.Message = "Subject: t\n\nhi\n"
	if _, err := p.Estimate(100); err == nil || !strings.Contains(err.Error(), "no From") {
		t.Errorf("without From: %v", err)
	}
}
