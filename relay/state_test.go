package relay

import (
	"testing"
	"testing/synctest"
	"time"

	"bulkmail/relay/smtp"
)

func TestStatusTellsWhatWasSent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		refuse := &recorder{reply: func(_ int, e *smtp.Envelope) error {
			answer(e, smtp.Accepted)
			e.Results[0].Status = smtp.Rejected
			return nil
		}}
		p := NewPool([]Relay{named("a", refuse, func(c *Config) { c.MaxMessages = 1000 })}, Options{})
		<-add(p, "x", 250).finished
		at := time.Now()
		synctest.Wait()
		s := p.Status()[0]
		if s.Relay != "a" || s.State != Awake || s.Messages != 247 || s.Envelopes != 3 || !s.LastMessage.Equal(at) ||
			s.LastError != nil || s.Sessions != 1 || s.Busy != 0 || s.Left != 753 {
			t.Errorf("%+v", s)
		}
		closePool(t, p)
	})
}

func TestStatusCountsEnvelopesByWhatBecameOfThem(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{reply: func(n int, e *smtp.Envelope) error {
			switch n {
			case 2:
				answer(e, smtp.Rejected)
			case 3:
				return &smtp.Error{MBS: "MBS009", Unwell: true}
			default:
				answer(e, smtp.Accepted)
			}
			return nil
		}}
		p := NewPool([]Relay{named("a", r, connections(1))}, Options{})
		<-add(p, "x", 450).finished
		synctest.Wait()
		// The third is sent once more.
		s := p.Status()[0]
		if s.Envelopes != 4 || s.Refused != 1 || s.Failed != 1 || s.Errors != 1 {
			t.Errorf("%+v", s)
		}
		closePool(t, p)
	})
}
