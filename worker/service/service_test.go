package service_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nats.go/micro"
	"go.uber.org/goleak"

	"bulkmail/subjects"
	"bulkmail/subjects/api"
	"bulkmail/subjects/broker/brokertest"
	"bulkmail/subjects/campaign"
	"bulkmail/worker/service"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// What is asked and answered is a contract with programs of others: rewrite a
// golden file only when the change is meant and told of.
var update = flag.Bool("update", false, "rewrite the golden files")

// A desk is a broker with everything on it, a service, and who asks.
type desk struct {
	*api.Client
	t     *testing.T
	js    jetstream.JetStream
	names subjects.Names
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	d := &desk{t: t, js: brokertest.Connect(t, brokertest.Start(t).URL())}
	quiet := slog.New(slog.DiscardHandler)
	if err := subjects.Provision(t.Context(), d.js, d.names, subjects.Options{AckWait: time.Minute, OutcomesMaxAge: time.Hour}, quiet); err != nil {
		t.Fatal(err)
	}
	s, err := service.Start(t.Context(), d.js, d.names, service.Options{Worker: "w1", Version: "v1.2.3"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(t.Context()); err != nil {
			t.Error(err)
		}
	})
	d.Client = api.New(d.js.Conn(), d.names, "ann@office")
	return d
}

// journal appends an entry to the journal of a batch, as a worker would.
func (d *desk) journal(name, batch string, event subjects.Event, results ...subjects.Results) {
	d.t.Helper()
	e := subjects.Entry{Time: time.Date(2026, 11, 24, 0, 0, 1, 0, time.UTC), Worker: "w1", Attempt: 1, Event: event, Results: results}
	if _, err := d.js.Publish(d.t.Context(), d.names.Outcomes(name, batch), e.AppendJSON(nil)); err != nil {
		d.t.Fatal(err)
	}
}

func (d *desk) ask(subject, request string, header nats.Header) *nats.Msg {
	d.t.Helper()
	m, err := d.js.Conn().RequestMsgWithContext(d.t.Context(), &nats.Msg{Subject: subject, Data: []byte(request), Header: header})
	if err != nil {
		d.t.Fatalf("%s: %v", subject, err)
	}
	return m
}

// newest is what differs from run to run.
var newest = regexp.MustCompile(`"20\d\d-[0-9T:.-]+Z"|"rate":[0-9.e+]+|20\d\d-\d\d-\d\d \d\d:\d\d:\d\d|"at": \d+`)

func TestWhatIsAskedAndAnsweredIsAsPublished(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.journal("news", "b1", subjects.Claimed)
	d.journal("news", "b1", subjects.Done,
		subjects.Results{Status: subjects.Accepted, Relay: "primary", Code: 250, Enhanced: "2.0.0", Text: "Ok: <4XyZ&1>", Recipients: []string{"ann@example.net", "bob@example.net"}},
		subjects.Results{Status: subjects.Rejected, Relay: "primary", Code: 550, Enhanced: "5.1.1", Text: "no such user", Recipients: []string{"gone@example.net"}})
	for _, c := range []struct{ golden, subject, request string }{
		{"campaigns", "bulkmail.api.campaigns._", ``},
		{"status", "bulkmail.api.status.news", `{}`},
		{"status-all", "bulkmail.api.status._", ``},
		{"detail", "bulkmail.api.detail.news", `{}`},
		{"detail-of-nobody", "bulkmail.api.detail.nws", ``},
		{"status-of-nobody", "bulkmail.api.status.nws", ``},
		{"outcomes", "bulkmail.api.outcomes.news", `{"status":["accepted","rejected"],"limit":2}`},
		{"outcomes-next", "bulkmail.api.outcomes.news", `{"status":["accepted","rejected"],"after":"1.2","limit":0}`},
		{"outcomes-wrong", "bulkmail.api.outcomes.news", `{"status":["sent"]}`},
		{"pause", "bulkmail.api.pause.news", `{"why":"wrong subject"}`},
		{"resume", "bulkmail.api.resume.news", ``},
		{"cancel", "bulkmail.api.cancel.news", `{}`},
		{"resume-cancelled", "bulkmail.api.resume.news", `{}`},
		{"pause-wrong", "bulkmail.api.pause.news", `{"reason":"wrong subject"}`},
		{"pause-nothing", "bulkmail.api.pause._", ``},
	} {
		m := d.ask(c.subject, c.request, nats.Header{api.HeaderActor: {"ann@office"}})
		var told strings.Builder
		told.WriteString("> " + c.subject + " " + c.request + "\n")
		for _, name := range []string{micro.ErrorCodeHeader, micro.ErrorHeader, api.HeaderBefore, api.HeaderNext} {
			if value := m.Header.Get(name); value != "" {
				told.WriteString("< " + name + ": " + value + "\n")
			}
		}
		if len(m.Data) > 0 {
			var pretty bytes.Buffer
			if err := json.Indent(&pretty, m.Data, "", "  "); err != nil {
				t.Errorf("%s: %v in %s", c.golden, err, m.Data)
			}
			told.WriteString(pretty.String() + "\n")
		}
		got := newest.ReplaceAllString(strings.ReplaceAll(told.String(), `"rate": `, `"rate":`), "…")
		path := filepath.Join("testdata", c.golden+".txt")
		if *update {
			if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), got); diff != "" {
			t.Errorf("%s -published +now\n%s", c.golden, diff)
		}
	}
}

func TestTheServiceIsFoundUnderThePrefix(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	var info micro.Info
	if err := json.Unmarshal(d.ask("$SRV.INFO.bulkmail", "", nil).Data, &info); err != nil {
		t.Fatal(err)
	}
	if info.Name != "bulkmail" || info.Version != "1.2.3" || info.Metadata["worker"] != "w1" || len(info.Endpoints) != len(api.Verbs()) {
		t.Errorf("%+v", info)
	}
}

func TestWhoAskedIsOnRecordAsTheBrokerSays(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	by := func(header nats.Header) string {
		t.Helper()
		var record api.Record
		for _, verb := range []string{"pause", "resume"} {
			if err := json.Unmarshal(d.ask("bulkmail.api."+verb+".later", "", header).Data, &record); err != nil {
				t.Fatal(err)
			}
		}
		return record.Changes[len(record.Changes)-1].By
	}
	for want, header := range map[string]nats.Header{
		"":           nil,
		"bob@office": {api.HeaderActor: {"bob@office"}},
		"one line":   {api.HeaderActor: {"one\tline"}},
		"CN=eve":     {api.HeaderActor: {"ann@office"}, "Nats-Request-Info": {`{"acc":"MAIL","user":"CN=eve"}`}},
	} {
		if got := by(header); got != want {
			t.Errorf("%v: by %q", header, got)
		}
	}
}

func TestAClientIsToldWhatACampaignClientIs(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	if _, err := d.Status(t.Context(), "news"); !errors.Is(err, campaign.ErrNoCampaign) {
		t.Errorf("of a name that nobody used: %v", err)
	}
	if _, before, err := d.Pause(t.Context(), "news", "later"); before != subjects.CampaignRunning || err != nil {
		t.Errorf("was %q, %v", before, err)
	}
	record, before, err := d.Resume(t.Context(), "news", "")
	if before != subjects.CampaignPaused || record.State != subjects.CampaignRunning || len(record.Changes) != 2 || record.Changes[0].By != "ann@office" || err != nil {
		t.Errorf("was %q, %+v, %v", before, record, err)
	}
	if _, _, err := d.Cancel(t.Context(), "a.b", ""); err == nil {
		t.Error("a name that cannot be is cancelled")
	}
	names, err := d.Campaigns(t.Context())
	if diff := cmp.Diff([]string{"news"}, names); diff != "" || err != nil {
		t.Errorf("%v %s", err, diff)
	}
	list, err := d.Statuses(t.Context())
	if len(list) != 1 || list[0].Campaign != "news" || err != nil {
		t.Errorf("%+v, %v", list, err)
	}
}

func TestNobodyAnsweringIsAnErrorOfItsOwn(t *testing.T) {
	t.Parallel()
	js := brokertest.Connect(t, brokertest.Start(t).URL())
	if _, err := api.New(js.Conn(), subjects.Names{}, "").Campaigns(t.Context()); !errors.Is(err, api.ErrNoWorker) {
		t.Errorf("error is %v", err)
	}
}

// Pages are what the whole is, whatever their size.
func TestPagesOfOutcomesAreAllOutcomesOnce(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.journal("news", "b2", subjects.Claimed)
	d.journal("news", "b1", subjects.Claimed)
	d.journal("news", "b1", subjects.Recorded, subjects.Results{Status: subjects.Deferred, Recipients: []string{"c@x.test", "a@x.test", "b@x.test"}})
	d.journal("other", "b1", subjects.Done, subjects.Results{Status: subjects.Accepted, Recipients: []string{"o@x.test"}})
	d.journal("news", "b2", subjects.Done, subjects.Results{Status: subjects.Accepted, Recipients: []string{"e@x.test", "d@x.test"}})
	if _, err := d.js.Publish(t.Context(), "bulkmail.outcomes.news.b1", []byte("no JSON")); err != nil {
		t.Fatal(err)
	}
	d.journal("news", "b1", subjects.Done, subjects.Results{Status: subjects.Rejected, Recipients: []string{"b@x.test"}})
	want := []string{"d@x.test accepted", "e@x.test accepted", "a@x.test deferred", "b@x.test rejected", "c@x.test deferred"}
	for limit := 1; limit < 7; limit++ {
		var got, unreadable []string
		for request := (api.OutcomesRequest{Limit: limit}); ; {
			data, err := json.Marshal(request)
			if err != nil {
				t.Fatal(err)
			}
			var page api.OutcomesAnswer
			if err := json.Unmarshal(d.ask("bulkmail.api.outcomes.news", string(data), nil).Data, &page); err != nil {
				t.Fatal(err)
			}
			if len(page.Outcomes) > limit {
				t.Fatalf("%d on a page of %d", len(page.Outcomes), limit)
			}
			for _, o := range page.Outcomes {
				got = append(got, o.Recipient+" "+string(o.Status))
			}
			for _, u := range page.Unreadable {
				unreadable = append(unreadable, u.Subject)
			}
			if request.After = page.Next; page.Next == "" {
				break
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%d a page: %s", limit, diff)
		}
		if diff := cmp.Diff([]string{"bulkmail.outcomes.news.b1"}, unreadable); diff != "" {
			t.Errorf("%d a page, unreadable: %s", limit, diff)
		}
	}
}
