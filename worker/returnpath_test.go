package worker_test

import (
	"strings"
	"sync"
	"testing"

	"bulkmail/envelope"
	"bulkmail/envelope/keys"
	"bulkmail/envelope/returnpath"
	"bulkmail/relay"
	"bulkmail/relay/sink"
	"bulkmail/subjects"
	"bulkmail/worker"
)

func TestTheReturnPathFindsTheBatchAndTheRecipientOfALetter(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	key, err := keys.Generate("k1")
	if err != nil {
		t.Fatal(err)
	}
	path, err := returnpath.ParsePath("b+{token}@bounces.example.com")
	if err != nil {
		t.Fatal(err)
	}
	opener, err := returnpath.NewKeys(key.Derive(returnpath.Purpose))
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	senders := make(map[string]string) // by recipient
	post := openSink(t, sink.Options{Recorder: func(tx sink.Transaction) {
		mu.Lock()
		defer mu.Unlock()
		for _, r := range tx.Recipients {
			senders[r] = tx.From
		}
	}})
	o := worker.Options{Letters: worker.LetterOptions{Keys: keys.Keys{key}, ReturnPath: path}}
	h.hire(t, o, post.relay(t))
	plain := newHouse(t)
	plain.hire(t, o, post.relay(t, func(c *relay.Config) { c.ReturnPath = relay.Off }))
	letter := func(to string) envelope.Recipient {
		return envelope.Recipient{Address: to, Letter: &envelope.Letter{Name: "X"}}
	}
	const message = "From: news@example.com\nSubject: t\n\nhi\n"
	h.publish(t, "many", envelope.Batch{ID: "1", Message: message, Recipients: envelope.To("ann@many.test", "bob@many.test")})
	h.publish(t, "letters", envelope.Batch{ID: "1", Message: message, Recipients: []envelope.Recipient{letter("ann@letters.test"), letter("Bob@letters.test")}})
	h.publishRaw(t, "null", `{"id":"1","from":"<>","message":"From: a@b.test\nSubject: t\n\nhi\n","recipients":["ann@null.test"]}`)
	plain.publish(t, "off", envelope.Batch{ID: "1", Message: message, Recipients: envelope.To("ann@off.test")})
	claims := make(map[uint64]string)
	for _, campaign := range []string{"many", "letters", "null"} {
		h.ledger(t, campaign, "1").until(subjects.Done)
		claims[h.claim(t, campaign)] = campaign
	}
	plain.ledger(t, "off", "1").until(subjects.Done)
	mu.Lock()
	defer mu.Unlock()
	if senders["ann@null.test"] != "" || senders["ann@off.test"] != "news@example.com" || senders["ann@many.test"] != senders["bob@many.test"] {
		t.Errorf("senders %v", senders)
	}
	for _, name := range []string{"ann@many.test", "ann@letters.test", "Bob@letters.test"} {
		token, ok := path.Token(senders[name])
		opened, err := opener.Open(token)
		if !ok || err != nil {
			t.Fatalf("%s has the sender %s: %v", name, senders[name], err)
		}
		campaign := strings.TrimSuffix(name[strings.IndexByte(name, '@')+1:], ".test")
		if claims[opened.Sequence] != campaign || opened.Batch != (campaign == "many") || !opened.Batch && !opened.Is(name) {
			t.Errorf("%s: the token is about %q, %+v", name, claims[opened.Sequence], opened.Token)
		}
	}
}

// claim is the sequence of the claim of a campaign's batch.
func (h *house) claim(t *testing.T, campaign string) uint64 {
	t.Helper()
	s, err := h.js.Stream(t.Context(), h.names.OutcomesStream())
	if err != nil {
		t.Fatal(err)
	}
	for n := uint64(1); ; n++ {
		m, err := s.GetMsg(t.Context(), n)
		if err != nil {
			t.Fatal(err)
		}
		if m.Subject == h.names.Outcomes(campaign, "1") && strings.Contains(string(m.Data), `"claimed"`) {
			return n
		}
	}
}
