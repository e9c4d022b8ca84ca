package worker

import (
	"cmp"
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"bulkmail/envelope"
	"bulkmail/envelope/dkim"
	"bulkmail/envelope/keys"
	"bulkmail/envelope/letter"
	"bulkmail/envelope/mustache"
	"bulkmail/envelope/returnpath"
	"bulkmail/relay"
	"bulkmail/relay/smtp"
	"bulkmail/subjects"
	"bulkmail/worker/journal"
)

// LetterOptions are what letters are made with, and in part messages to many.
type LetterOptions struct {
	Keys keys.Keys // of Message-IDs and unsubscribe tokens; none: one that workers share on the broker
	DKIM dkim.Keys // that sign; none: what leaves is unsigned

	UnsubscribeURL    string // https://…, to which a letter's token is appended; "": none
	UnsubscribeMailto string // an address; "": none

	ReturnPath returnpath.Path // takes the place of the sender; zero: none
}

// What is recorded of recipients whose letter cannot be made. 5.6.0 is "other or
// undefined media error".
const (
	unmadeCode     = 554
	unmadeEnhanced = "5.6.0"
	// madeHere stands where a reply has the command that it answers.
	madeHere = "LETTER"
)

// A press makes the messages that leave. What takes memory is kept in desks, of
// which there are as many as letters on their way.
type press struct {
	o       LetterOptions
	desks   sync.Pool // of *desk
	signing sync.Map  // *dkim.Options by what a relay wants unsigned
}

// A desk makes one letter after the other.
type desk struct {
	renderer letter.Renderer
	signer   dkim.Signer
	to       letter.Recipient
	signed   []byte // signature and letter
	message  envelope.Message
}

func (p *press) desk() *desk {
	if d, ok := p.desks.Get().(*desk); ok {
		return d
	}
	return new(desk)
}

// unsigned is how to sign for a relay that wants these fields unsigned.
func (p *press) unsigned(fields string) *dkim.Options {
	if o, ok := p.signing.Load(fields); ok {
		return o.(*dkim.Options)
	}
	o := &dkim.Options{}
	if fields != "" {
		o.Unsigned = strings.Split(fields, ",")
	}
	p.signing.Store(fields, o)
	return o
}

// A mailing is what the envelopes of one batch carry: a letter each, or all the
// same message.
type mailing struct {
	press    *press
	message  *loan
	letters  bool
	common   letter.Batch
	signedBy dkim.Keys // where From is the same in all letters
	forms    *forms    // of a message to many
}

// mailing fetches the message of a batch and sees what is to be made of it. Key
// and date are those of the batch's first attempt, so that a letter that is sent
// again is the same letter. An [*envelope.FieldError] says that the batch can never
// be sent.
func (w *Worker) mailing(ctx context.Context, d *delivery, b *envelope.Batch, known *journal.State) (_ *mailing, err error) {
	message, err := w.messages.lend(ctx, b, d)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			message.end()
		}
	}()
	if known.Stamp.Date.IsZero() {
		known.Stamp.Date = cmp.Or(known.FirstClaim, time.Now()).UTC().Truncate(time.Second)
	}
	key := w.press.o.Keys.Find(known.Stamp.Key)
	if key == nil {
		key = w.press.o.Keys.First()
		known.Stamp.Key = key.ID
	}
	list := w.campaigns.list(d.campaign)
	m := &mailing{
		press: w.press, message: message, letters: b.Letters(),
		common: letter.Batch{
			Campaign: d.campaign, ID: d.batch, Data: b.Data, Date: known.Stamp.Date, Key: key,
			List: list.name, Transactional: list.kind == subjects.KindTransactional,
			UnsubscribeURL: w.press.o.UnsubscribeURL, UnsubscribeMailto: w.press.o.UnsubscribeMailto,
		},
	}
	if domain := message.template.Domain(); domain != "" {
		m.signedBy = w.press.o.DKIM.For(domain)
	}
	if m.letters {
		var data mustache.Data
		if _, err = data.Read([]byte(b.Data)); err != nil {
			return nil, &envelope.FieldError{Field: "data", Reason: err.Error()}
		}
		return m, nil
	}
	m.common.ID = "" // Message-ID is of the message
	m.forms = cmp.Or(message.forms, new(forms))
	if _, refused := m.form(form{}); refused != nil {
		return nil, &envelope.FieldError{Field: message.field, Reason: strings.TrimPrefix(refused.Text, notSent)}
	}
	return m, nil
}

// end gives back the memory of the message; a batch may have none.
func (m *mailing) end() {
	if m != nil {
		m.message.end()
	}
}

// source makes the message of one envelope, for the relay that the grant is of.
func (m *mailing) source(g relay.Grant, to []envelope.Recipient) smtp.Source {
	f := form{sign: g.DKIM && len(m.press.o.DKIM) > 0, unsigned: g.DKIMUnsigned}
	if m.letters {
		return &oneLetter{mailing: m, form: f, to: &to[0]}
	}
	return &toMany{m, f}
}

// A form is a way in which a relay wants a message.
type form struct {
	sign     bool
	unsigned string // fields
	sevenBit bool
}

// oneLetter is the letter of one recipient.
type oneLetter struct {
	mailing *mailing
	form    form
	to      *envelope.Recipient
	desk    *desk // nil: not made
}

// Make implements [smtp.Source].
func (l *oneLetter) Make(sevenBit bool) (*envelope.Message, *smtp.Reply) {
	l.form.sevenBit = sevenBit
	l.desk = l.mailing.press.desk()
	l.desk.to = letter.Recipient{To: l.to.Mailbox}
	if said := l.to.Letter; said != nil {
		l.desk.to.Name, l.desk.to.Data = said.Name, said.Data
	}
	if err := l.desk.make(l.mailing, l.form); err != nil {
		return nil, refusal(err)
	}
	return &l.desk.message, nil
}

// release has the memory of the letter serve another one. The envelope is settled.
func (l *oneLetter) release() {
	if l.desk != nil {
		l.mailing.press.desks.Put(l.desk)
		l.desk = nil
	}
}

// release lets go of the message of an envelope that is settled.
func release(e *relay.Envelope) {
	if l, ok := e.Message.Source().(*oneLetter); ok {
		l.release()
	}
}

// make makes the letter for d.to: merged, signed where that is wanted.
func (d *desk) make(m *mailing, f form) error {
	made, err := d.renderer.Render(m.message.template, &m.common, &d.to, f.sevenBit)
	if err != nil {
		return err
	}
	wire, size := made.Wire, made.Size
	if f.sign {
		by := m.signedBy
		if by == nil && made.Domain != "" {
			by = m.press.o.DKIM.For(made.Domain)
		}
		if len(by) > 0 {
			// Appended beside the letter, as it stands in front of it.
			if d.signed, err = d.signer.Append(d.signed[:0], wire, by, m.press.unsigned(f.unsigned), time.Now()); err != nil {
				return err
			}
			size += int64(len(d.signed))
			d.signed = append(d.signed, wire...)
			wire = d.signed
		}
	}
	d.message = envelope.WireMessage(wire, size, made.EightBit, made.UTF8)
	return nil
}

const notSent = "not sent: "

// refusal is what is recorded of recipients for whom there is no message.
func refusal(err error) *smtp.Reply {
	if rejected, ok := errors.AsType[*letter.RejectError](err); ok {
		return &smtp.Reply{Code: unmadeCode, Enhanced: unmadeEnhanced, Text: notSent + rejected.Reason, Command: madeHere, Local: true}
	}
	return &smtp.Reply{Code: 451, Enhanced: "4.3.0", Text: notSent + err.Error(), Command: madeHere, Local: true}
}

// toMany is the message of all envelopes of a batch.
type toMany struct {
	mailing *mailing
	form    form
}

// Make implements [smtp.Source].
func (t *toMany) Make(sevenBit bool) (*envelope.Message, *smtp.Reply) {
	f := t.form
	if sevenBit {
		// Most messages are the same for both.
		plain, _ := t.mailing.form(form{})
		f.sevenBit = plain.EightBit()
	}
	return t.mailing.form(f)
}

// forms are a message to many in all forms that relays have wanted.
type forms struct {
	mu   sync.Mutex // guards what follows
	made map[form]*formed
}

// formed is made once; who wants it meanwhile waits.
type formed struct {
	once    sync.Once
	message envelope.Message
	refused *smtp.Reply
}

func (s *forms) of(f form) *formed {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.made == nil {
		s.made = make(map[form]*formed)
	}
	if s.made[f] == nil {
		s.made[f] = new(formed)
	}
	return s.made[f]
}

// form is the message to many in one form.
func (m *mailing) form(f form) (*envelope.Message, *smtp.Reply) {
	made := m.forms.of(f)
	made.once.Do(func() {
		var d desk // of which the message stays
		d.to = letter.Recipient{To: m.message.digest}
		if err := d.make(m, f); err != nil {
			made.refused = refusal(err)
			return
		}
		made.message = d.message
	})
	if made.refused != nil {
		return nil, made.refused
	}
	return &made.message, nil
}
