package feedback_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"bulkmail/envelope/keys"
	"bulkmail/subjects"
	"bulkmail/subjects/broker"
	"bulkmail/subjects/broker/brokertest"
	"bulkmail/testdata/testrun"
	"bulkmail/worker/feedback"
	"bulkmail/worker/suppress"
)

func TestMain(m *testing.M) {
	testrun.AtOnce(6)
	goleak.VerifyTestMain(m)
}

var names subjects.Names

const patience = 20 * time.Second

// A desk is a feedback process.
type desk struct {
	t    *testing.T
	js   jetstream.JetStream
	url  string
	keys keys.Keys
	file string
}

func newKey(t *testing.T, id string) *keys.Key {
	t.Helper()
	k, err := keys.Generate(id)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// open starts a feedback process at a broker, and waits until it listens.
func open(t *testing.T, js jetstream.JetStream, change ...func(*feedback.Options)) *desk {
	t.Helper()
	d := &desk{t: t, js: js, keys: keys.Keys{newKey(t, "k1")}, file: filepath.Join(t.TempDir(), "keys")}
	d.writeKeys(d.keys...)
	addr := make(chan string, 1)
	o := feedback.Options{
		HTTP: "127.0.0.1:0", KeysFile: d.file, Rate: 1e6, Provide: subjects.Options{AckWait: 30 * time.Second, OutcomesMaxAge: time.Hour},
		Opened: func(a string) { addr <- a },
	}
	for _, f := range change {
		f(&o)
	}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := feedback.Run(ctx, js, names, o); err != nil {
			t.Errorf("it ended with: %v", err)
			close(addr)
		}
	})
	t.Cleanup(func() {
		stop()
		running.Wait()
	})
	d.url = "http://" + <-addr + "/u/"
	return d
}

func (d *desk) writeKeys(ks ...*keys.Key) {
	d.t.Helper()
	var text strings.Builder
	for _, k := range ks {
		text.WriteString(k.Line() + "\n")
	}
	if err := os.WriteFile(d.file, []byte(text.String()), 0o600); err != nil {
		d.t.Fatal(err)
	}
}

func (d *desk) token(s keys.Subscription) string {
	return string(d.keys.First().Maker().AppendToken(nil, s))
}

// do makes a request, and returns status and body.
func (d *desk) do(method, address, form, body string) (int, string) {
	d.t.Helper()
	r, err := http.NewRequestWithContext(d.t.Context(), method, address, strings.NewReader(body))
	if err != nil {
		d.t.Fatal(err)
	}
	if form != "" {
		r.Header.Set("Content-Type", form)
	}
	client := http.Client{
		Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}},
		CheckRedirect: func(r *http.Request, _ []*http.Request) error {
			return fmt.Errorf("redirected to %s", r.URL)
		},
	}
	answer, err := client.Do(r)
	if err != nil {
		d.t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	return answer.StatusCode, string(text)
}

const urlencoded = "application/x-www-form-urlencoded"

func (d *desk) post(token string) (int, string) {
	d.t.Helper()
	return d.do(http.MethodPost, d.url+token, urlencoded, "List-Unsubscribe=One-Click")
}

// ready waits until unsubscribes are taken.
func (d *desk) ready() {
	d.t.Helper()
	probe, _ := url.Parse(d.url)
	probe.Path = "/readyz"
	d.until("ready", func() bool { status, _ := d.do(http.MethodGet, probe.String(), "", ""); return status == http.StatusOK })
}

func (d *desk) until(what string, ok func() bool) {
	d.t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			d.t.Fatal("not: " + what)
		}
	}
}

// stored is all events, and who is suppressed.
func (d *desk) stored() (events []subjects.FeedbackEvent, suppressed map[string]string) {
	d.t.Helper()
	suppressed = make(map[string]string)
	for c, err := range suppress.Changes(d.t.Context(), d.js, names) {
		if err != nil {
			d.t.Fatal(err)
		}
		for _, name := range c.Names {
			suppressed[name+" "+c.Scope] = c.Why
		}
	}
	stream, err := d.js.Stream(d.t.Context(), names.FeedbackStream())
	if err != nil {
		d.t.Fatal(err)
	}
	state := stream.CachedInfo().State
	for n := state.FirstSeq; n <= state.LastSeq && state.Msgs > 0; n++ {
		m, err := stream.GetMsg(d.t.Context(), n)
		if err != nil {
			d.t.Fatal(err)
		}
		var e subjects.FeedbackEvent
		if err := json.Unmarshal(m.Data, &e); err != nil {
			d.t.Fatal(err)
		}
		if want := names.Feedback(e.Campaign, e.Kind); m.Subject != want {
			d.t.Errorf("an event on %s, want %s", m.Subject, want)
		}
		events = append(events, e)
	}
	return events, suppressed
}

var (
	ann = keys.Subscription{Campaign: "spring", List: "weekly", Mailbox: "ann@example.net"}
	bob = keys.Subscription{Campaign: "spring", Mailbox: "bob@example.net"}
)

func TestAPostInEitherFormUnsubscribesOnceFromTheListOrFromAllBulkMail(t *testing.T) {
	t.Parallel()
	d := open(t, brokertest.Connect(t, brokertest.Start(t).URL()))
	d.ready()
	var form bytes.Buffer
	w := multipart.NewWriter(&form)
	if err := w.WriteField("List-Unsubscribe", "One-Click"); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	for range 3 {
		if status, body := d.post(d.token(ann)); status != http.StatusOK || !strings.Contains(body, "You are unsubscribed.") {
			t.Fatalf("urlencoded: %d %s", status, body)
		}
	}
	if status, body := d.do(http.MethodPost, d.url+"/"+strings.ToUpper(d.token(bob)), w.FormDataContentType(), form.String()); status != http.StatusOK {
		t.Fatalf("multipart: %d %s", status, body)
	}
	events, suppressed := d.stored()
	if diff := cmp.Diff(map[string]string{"ann@example.net list:weekly": "unsubscribed", "bob@example.net bulk": "unsubscribed"}, suppressed); diff != "" {
		t.Errorf("suppressed -want +got\n%s", diff)
	}
	if len(events) != 2 || events[0].Recipient != "ann@example.net" || events[0].Kind != subjects.Unsubscribed || events[0].ID == events[1].ID || events[0].Source != "http" {
		t.Errorf("events %+v", events)
	}

	// Who has subscribed again can leave again: that happened before, and yet must hold.
	if err := suppress.Append(t.Context(), d.js, names, subjects.SuppressionChange{Op: subjects.Release, Names: []string{"ann@example.net"}}); err != nil {
		t.Fatal(err)
	}
	log := func() uint64 {
		s, err := d.js.Stream(t.Context(), names.SuppressionStream())
		if err != nil {
			t.Fatal(err)
		}
		return s.CachedInfo().State.LastSeq
	}
	d.until("suppressed anew", func() bool { d.post(d.token(ann)); return log() == 4 })
	if events, _ := d.stored(); len(events) != 2 {
		t.Errorf("%d events", len(events))
	}
}

// An event is known by its id also to a process that was started later.
func TestAnotherProcessDoesNotStoreWhatIsStored(t *testing.T) {
	t.Parallel()
	js := brokertest.Connect(t, brokertest.Start(t).URL())
	d := open(t, js)
	d.ready()
	d.post(d.token(ann))
	stream, err := js.Stream(t.Context(), names.FeedbackStream())
	if err != nil {
		t.Fatal(err)
	}
	// The broker forgets the ids of messages after a while; it has when it is asked to
	// keep none.
	c := stream.CachedInfo().Config
	c.Duplicates = 100 * time.Millisecond
	if _, err := js.UpdateStream(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	again := open(t, js, func(o *feedback.Options) { o.KeysFile = d.file })
	again.keys = d.keys
	again.ready()
	probe := &nats.Msg{Subject: names.Feedback("c", subjects.Unsubscribed), Data: []byte("{}"), Header: nats.Header{jetstream.MsgIDHeader: {"probe"}}}
	d.until("the broker forgets ids", func() bool {
		ack, err := js.PublishMsg(t.Context(), probe)
		return err == nil && !ack.Duplicate && ack.Sequence > 2
	})
	if status, _ := again.post(d.token(ann)); status != http.StatusOK {
		t.Fatalf("status %d", status)
	}
	if n := len(stored(t, js, names.Feedback("spring", subjects.Unsubscribed))); n != 1 {
		t.Errorf("%d events", n)
	}
}

func stored(t *testing.T, js jetstream.JetStream, subject string) map[string]uint64 {
	t.Helper()
	s, err := js.Stream(t.Context(), names.FeedbackStream())
	if err != nil {
		t.Fatal(err)
	}
	info, err := s.Info(t.Context(), jetstream.WithSubjectFilter(subject))
	if err != nil {
		t.Fatal(err)
	}
	return info.State.Subjects
}

func TestNothingButAPostOfTheFormChangesAnything(t *testing.T) {
	t.Parallel()
	d := open(t, brokertest.Connect(t, brokertest.Start(t).URL()))
	d.ready()
	address := d.url + d.token(ann)
	for _, test := range []struct {
		method, form, body string
		want               int
	}{
		{http.MethodGet, "", "", 200},
		{http.MethodHead, "", "", 200},
		{http.MethodGet, urlencoded, "List-Unsubscribe=One-Click", 200},
		{http.MethodOptions, "", "", 405},
		{http.MethodPut, urlencoded, "List-Unsubscribe=One-Click", 405},
		{http.MethodDelete, "", "", 405},
		{http.MethodPost, "", "", 415},
		{http.MethodPost, "application/json", `{"List-Unsubscribe":"One-Click"}`, 415},
		{http.MethodPost, urlencoded, "", 400},
		{http.MethodPost, urlencoded, "List-Unsubscribe=Maybe", 400},
		{http.MethodPost, urlencoded, "List-Unsubscribe=One-Click&x=" + strings.Repeat("x", 1<<20), 413},
		{http.MethodPost, "multipart/form-data", "List-Unsubscribe=One-Click", 400},
		{http.MethodPost, "multipart/form-data; boundary=x", "--x\r\n", 400},
	} {
		if got, body := d.do(test.method, address+"?List-Unsubscribe=One-Click", test.form, test.body); got != test.want {
			t.Errorf("%s %.40s %.40s: %d, want %d: %s", test.method, test.form, test.body, got, test.want, body)
		}
	}
	events, suppressed := d.stored()
	if len(events)+len(suppressed) > 0 {
		t.Errorf("events %v, suppressed %v", events, suppressed)
	}
	_, page := d.do(http.MethodGet, address, "", "")
	if strings.Count(page, "<button") != 1 || !strings.Contains(page, `<form method="post">`) || strings.Contains(page, "example.net") || strings.Contains(page, "<script") {
		t.Errorf("the page is\n%s", page)
	}
}

func TestWhoTriesTokensLearnsNothing(t *testing.T) {
	t.Parallel()
	d := open(t, brokertest.Connect(t, brokertest.Start(t).URL()))
	d.ready()
	right := d.token(ann)
	wantStatus, want := d.post(right)
	other := string(newKey(t, "k1").Maker().AppendToken(nil, ann))
	wrong := []string{"", "x", other, right[1:], right[:len(right)-1], right + "a", strings.Repeat("a", 5000), url.PathEscape("../" + right[2:]), "%00", "%ff"}
	for i := range right {
		c := "a"
		if right[i] == 'a' {
			c = "b"
		}
		wrong = append(wrong, right[:i]+c+right[i+1:])
	}
	for _, token := range wrong {
		if status, body := d.post(token); status != wantStatus || body != want {
			t.Errorf("%.200q: %d %s", token, status, body)
		}
	}
	if events, suppressed := d.stored(); len(events) != 1 || len(suppressed) != 1 {
		t.Errorf("events %v, suppressed %v", events, suppressed)
	}
	_, rightPage := d.do(http.MethodGet, d.url+right, "", "")
	if _, wrongPage := d.do(http.MethodGet, d.url+other, "", ""); rightPage != wrongPage {
		t.Error("the pages differ")
	}
}

func TestALetterOfTwoKeysAgoStillWorks(t *testing.T) {
	t.Parallel()
	d := open(t, brokertest.Connect(t, brokertest.Start(t).URL()))
	d.ready()
	old := d.token(ann)
	first := d.keys[0]
	d.writeKeys(newKey(t, "k3"), newKey(t, "k2"), first)
	d.post(old)
	if events, _ := d.stored(); len(events) != 1 {
		t.Errorf("events %v", events)
	}
	d.writeKeys(newKey(t, "k4")) // the key is gone, and the file was read again
	d.post(d.token(bob))
	if events, _ := d.stored(); len(events) != 1 {
		t.Errorf("events %v", events)
	}
}

func TestWhileTheBrokerIsAwayEverybodyIsToldToTryAgain(t *testing.T) {
	t.Parallel()
	dir, listen := t.TempDir(), "127.0.0.1:0"
	start := func() *broker.Server {
		b, err := broker.Start(t.Context(), broker.Options{Listen: listen, Dir: dir, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		u, _ := url.Parse(b.URL())
		listen = u.Host
		return b
	}
	if err := start().Close(); err != nil { // for a port
		t.Fatal(err)
	}
	nc, err := nats.Connect("nats://"+listen, nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1), nats.ReconnectWait(20*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	d := open(t, js) // the broker is away
	for _, token := range []string{d.token(ann), "x"} {
		if status, body := d.post(token); status != http.StatusServiceUnavailable || !strings.Contains(body, "try again") {
			t.Errorf("%q: %d %s", token, status, body)
		}
	}
	if status, _ := d.do(http.MethodGet, d.url+d.token(ann), "", ""); status != http.StatusOK {
		t.Errorf("the page: %d", status)
	}
	b := start()
	d.ready()
	if status, _ := d.post(d.token(ann)); status != http.StatusOK {
		t.Errorf("back: %d", status)
	}
	if events, _ := d.stored(); len(events) != 1 {
		t.Errorf("events %v", events)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	d.until("away again", func() bool { return !nc.IsConnected() })
	for _, token := range []string{d.token(ann), "x"} {
		if status, _ := d.post(token); status != http.StatusServiceUnavailable {
			t.Errorf("%q: %d", token, status)
		}
	}
}

func TestWhoAsksTooOftenIsToldSo(t *testing.T) {
	t.Parallel()
	d := open(t, brokertest.Connect(t, brokertest.Start(t).URL()), func(o *feedback.Options) { o.Rate = 1 })
	d.ready()
	tooMany := 0
	for i := range 5 {
		token := d.token(ann)
		if i%2 == 0 {
			token = "x"
		}
		if status, _ := d.post(token); status == http.StatusTooManyRequests {
			tooMany++
		}
	}
	if tooMany == 0 {
		t.Error("five at once are answered at one a second")
	}
}

func TestThePageIsInTheReadersLanguage(t *testing.T) {
	t.Parallel()
	d := open(t, brokertest.Connect(t, brokertest.Start(t).URL()))
	d.ready() // a broker that ends while streams are made leaves something behind
	for accept, want := range map[string]string{
		"": "en", "de-CH": "de", "tlh, fr;q=0.8, de;q=0.9": "de", "xx": "en", "es;q=0": "en", "PL": "pl", ";;q=,,,": "en",
	} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, d.url+"x", nil)
		r.RequestURI = ""
		r.Header.Set("Accept-Language", accept)
		client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		answer, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = answer.Body.Close()
		if got := answer.Header.Get("Content-Language"); got != want {
			t.Errorf("%q: %s, want %s", accept, got, want)
		}
	}
}
