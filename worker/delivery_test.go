package worker_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bulkmail/envelope"
	"bulkmail/relay/sink"
	"bulkmail/relay/smtp"
	"bulkmail/subjects"
	"bulkmail/worker"
)

func TestABatchIsDeliveredAndLeavesTheQueue(t *testing.T) {
	t.Parallel()
	h, post := newHouse(t), openSink(t, sink.Options{})
	e := h.hire(t, worker.Options{Name: "w1"}, post.relay(t))
	list := people(250, "example.net", "example.org", "example.com")
	h.publish(t, "spring", envelope.Batch{ID: "0001", Recipients: envelope.To(list...)})

	l := h.ledger(t, "spring", "0001")
	done := l.until(subjects.Done)
	if l.events[0] != subjects.Claimed || done.Worker != "w1" || done.Attempt != 1 {
		t.Errorf("the journal says %v, and at last %+v", l.events, done)
	}
	if diff := cmp.Diff(map[subjects.Status]int{subjects.Accepted: 250}, l.tally()); diff != "" {
		t.Error(diff)
	}
	if o := l.newest[list[0]]; o.relay != "sink" || o.code != 250 {
		t.Errorf("of %s is known: %+v", list[0], o)
	}
	e.leave(t)
	if n := h.queued(t); n != 0 {
		t.Errorf("%d batches are left on the queue", n)
	}
	onceEach(t, post.seen(), list)
}

func TestTheSameMailboxTwiceIsSentOnceAndInvalidAddressesHarmNobody(t *testing.T) {
	t.Parallel()
	h, post := newHouse(t), newMemory()
	h.hire(t, worker.Options{}, post.relay())
	h.publish(t, "c", envelope.Batch{ID: "1", Recipients: envelope.To(
		"ann@example.net", "ann@EXAMPLE.net", "no address", "bob@example.org", "", "x@@example.net", "eve@example.net\r\nRCPT TO:<all@example.net>",
	)})
	l := h.ledger(t, "c", "1")
	l.until(subjects.Done)
	onceEach(t, post.seen(), []string{"ann@example.net", "bob@example.org"})
	for _, bad := range []string{"no address", "", "x@@example.net", "eve@example.net\r\nRCPT TO:<all@example.net>"} {
		o := l.newest[bad]
		if o.status != subjects.Rejected || o.code != 553 || o.relay != "" || !strings.HasPrefix(o.text, "not sent: ") {
			t.Errorf("%q: %+v", bad, o)
		}
	}
	if len(l.newest) != 6 {
		t.Errorf("the journal knows %d recipients, want 6: %v", len(l.newest), l.newest)
	}
}

func TestOnlyInvalidAddressesAreDoneWithoutARelay(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	e := h.hire(t, worker.Options{})
	h.publish(t, "c", envelope.Batch{ID: "1", Recipients: envelope.To("nobody", "@")})
	l := h.ledger(t, "c", "1")
	l.until(subjects.Done)
	if diff := cmp.Diff(map[subjects.Status]int{subjects.Rejected: 2}, l.tally()); diff != "" {
		t.Error(diff)
	}
	e.leave(t)
	if n := h.queued(t); n != 0 {
		t.Errorf("%d batches are left on the queue", n)
	}
}

// Some are accepted, some rejected, some deferred: the deferred alone come back.
func TestMixedResultsInOneBatch(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	post := openSink(t, sink.Options{}, "RCPT:*@gone.test=550 5.1.1 no such user", "RCPT:*@full.test=451 4.2.2 mailbox full", "DATA:*@spam.test=554 5.7.1 spam")
	e := h.hire(t, worker.Options{RetryDelays: worker.Schedule{50 * time.Millisecond}}, post.relay(t))
	list := people(1000, "example.net", "gone.test", "full.test", "spam.test", "example.org")
	h.publish(t, "c", envelope.Batch{ID: "mix", Recipients: envelope.To(list...)})

	l := h.ledger(t, "c", "mix")
	for l.attempt < 4 { // it has come back three times
		l.until(subjects.Claimed)
	}
	if diff := cmp.Diff(map[subjects.Status]int{subjects.Accepted: 400, subjects.Rejected: 400, subjects.Deferred: 200}, l.tally()); diff != "" {
		t.Fatal(diff)
	}
	for recipient, o := range l.newest {
		_, domain, _ := strings.Cut(recipient, "@")
		var want outcome
		switch domain {
		case "gone.test":
			want = outcome{subjects.Rejected, "sink", 550, "no such user", 1}
		case "spam.test":
			want = outcome{subjects.Rejected, "sink", 554, "spam", 1}
		case "full.test":
			want = outcome{subjects.Deferred, "sink", 451, "mailbox full", 3}
		default:
			want = outcome{subjects.Accepted, "sink", 250, o.text, 1}
		}
		if o != want {
			t.Fatalf("of %s is known %+v, want %+v", recipient, o, want)
		}
	}
	if refused := post.Counts().Replies["RCPT 550 5.1.1"]; refused != 200 {
		t.Errorf("the 200 rejected recipients were offered %d times", refused)
	}

	post.SetRules(nil)
	l.until(subjects.Done)
	if diff := cmp.Diff(map[subjects.Status]int{subjects.Accepted: 600, subjects.Rejected: 400}, l.tally()); diff != "" {
		t.Error(diff)
	}
	e.leave(t)
	if n := h.queued(t); n != 0 {
		t.Errorf("%d batches are left on the queue", n)
	}
	onceEach(t, post.seen(), people1000At("example.net"), people1000At("example.org"), people1000At("full.test"))
}

// people1000At is who of the list above is at the domain.
func people1000At(domain string) []string {
	var at []string
	for _, r := range people(1000, "example.net", "gone.test", "full.test", "spam.test", "example.org") {
		if strings.HasSuffix(r, "@"+domain) {
			at = append(at, r)
		}
	}
	return at
}

func TestWhatIsDeferredForEverExpiresAndIsADeadLetter(t *testing.T) {
	t.Parallel()
	h, post := newHouse(t), newMemory()
	post.reply = func(r string) *smtp.Reply {
		if strings.HasSuffix(r, "@full.test") {
			return &smtp.Reply{Code: 452, Enhanced: "4.2.2", Text: "mailbox full", Command: "RCPT"}
		}
		if strings.HasSuffix(r, "@grey.test") {
			return &smtp.Reply{Code: 451, Enhanced: "4.7.1", Text: "come again", Command: "RCPT"}
		}
		return nil
	}
	e := h.hire(t, worker.Options{RetryDelays: worker.Schedule{20 * time.Millisecond}, RetryFor: 300 * time.Millisecond}, post.relay())
	list := people(9, "example.net", "full.test", "grey.test")
	h.publish(t, "c", envelope.Batch{ID: "1", Recipients: envelope.To(list...), Message: "Subject: rest\n\nhi\n"})

	letter := h.tail(t, h.names.DeadStream(), h.names.Dead("c")).next()
	rest, err := envelope.Decode(letter.Data())
	if err != nil {
		t.Fatalf("a dead letter must be fit to be published again: %v", err)
	}
	want := &envelope.Batch{
		Version: 1, ID: "1", From: "news@example.com", Message: "Subject: rest\n\nhi\n",
		Recipients: []envelope.Recipient{
			{Address: "p1@full.test"}, {Address: "p2@grey.test"}, {Address: "p4@full.test"},
			{Address: "p5@grey.test"}, {Address: "p7@full.test"}, {Address: "p8@grey.test"},
		},
	}
	if diff := cmp.Diff(want, rest); diff != "" {
		t.Error(diff)
	}
	header := letter.Headers()
	if header.Get(subjects.HeaderCause) != subjects.CauseExpired || header.Get(subjects.HeaderBatch) != "1" ||
		header.Get(subjects.HeaderCodes) != "451 452" || !strings.Contains(header.Get(subjects.HeaderReason), "300ms") {
		t.Errorf("the dead letter says %v", header)
	}

	l := h.ledger(t, "c", "1")
	l.until(subjects.Done)
	if diff := cmp.Diff(map[subjects.Status]int{subjects.Accepted: 3, subjects.Expired: 6}, l.tally()); diff != "" {
		t.Error(diff)
	}
	if o := l.newest["p1@full.test"]; o.code != 452 || o.text != "mailbox full" || o.relay != "memory" || o.attempt < 2 {
		t.Errorf("why it expired is not said: %+v", o)
	}
	e.leave(t)
	if q, d := h.queued(t), h.stored(t, h.names.DeadStream()); q != 0 || d != 1 {
		t.Errorf("%d batches are queued and %d dead, want 0 and 1", q, d)
	}
	onceEach(t, post.seen(), []string{"p0@example.net", "p3@example.net", "p6@example.net"})
}

func TestTwoWorkersShareTheQueue(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	var posts []*memory
	for _, name := range []string{"w1", "w2"} {
		post := newMemory()
		post.gate, post.arrived = make(chan struct{}), make(chan []string, 1000)
		h.hire(t, worker.Options{Name: name, Batches: 2}, post.relay())
		posts = append(posts, post)
	}
	const batches = 60
	var all [][]string
	for i := range batches {
		id := fmt.Sprint("b", i)
		list := people(40, id+".test", id+".example")
		all = append(all, list)
		h.publish(t, "c", envelope.Batch{ID: id, Recipients: envelope.To(list...)})
	}
	for _, post := range posts { // both have begun
		<-post.arrived
	}
	for _, post := range posts {
		close(post.gate)
	}
	by := make(map[string]int)
	l := &ledger{tail: h.tail(t, h.names.OutcomesStream(), h.names.CampaignOutcomes("c")), newest: make(map[string]outcome)}
	for range batches {
		by[l.until(subjects.Done).Worker]++
	}
	if by["w1"] == 0 || by["w2"] == 0 {
		t.Errorf("batches done by worker: %v", by)
	}
	if diff := cmp.Diff(map[subjects.Status]int{subjects.Accepted: batches * 40}, l.tally()); diff != "" {
		t.Error(diff)
	}
	both := posts[0].seen()
	for recipient, n := range posts[1].seen() {
		both[recipient] += n
	}
	onceEach(t, both, all...)
}
