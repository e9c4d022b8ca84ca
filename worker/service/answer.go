package service

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"bulkmail/envelope"
	"bulkmail/subjects/api"
	"bulkmail/subjects/campaign"
)

const (
	// within is how long an answer may take.
	within = 20 * time.Second
	// answerRoom is what an answer may have beside its data.
	answerRoom = 4 << 10
	// headerInfo is who asks, as the broker says.
	headerInfo = "Nats-Request-Info"
)

// A request is what is asked.
type request struct {
	*Service
	verb  api.Verb
	about string // the campaign or relay, or [subjects.AllCampaigns]
	actor string
	data  []byte

	header micro.Headers // of the answer
}

// answer answers a request.
func (s *Service) answer(v api.Verb, r micro.Request) {
	ctx, cancel := context.WithTimeout(s.work, within)
	defer cancel()
	q := &request{Service: s, verb: v, about: lastToken(r.Subject()), actor: actor(nats.Header(r.Headers())), data: r.Data(), header: make(micro.Headers)}
	answer, err := q.do(ctx)
	var data []byte
	if err == nil {
		data, err = encode(answer)
	}
	if err == nil && len(data) > s.most {
		err = &api.Error{Code: api.BadRequest, Text: "the answer is larger than what the broker takes: ask for less"}
	}
	if err == nil {
		err = r.Respond(data, micro.WithHeaders(q.header))
	} else {
		said := errorOf(err)
		if said.Code == api.Unavailable {
			s.log.WarnContext(ctx, "request failed", "verb", v, "about", q.about, "error", err)
		}
		err = r.Error(strconv.Itoa(said.Code), said.Text, nil)
	}
	if err != nil {
		s.log.WarnContext(ctx, "request not answered", "verb", v, "about", q.about, "error", err)
	}
}

func lastToken(subject string) string { return subject[strings.LastIndexByte(subject, '.')+1:] }

// actor is who asks: as the broker says, else as the request does.
func actor(h nats.Header) string {
	var info struct {
		User string `json:"user"`
		Name string `json:"name"`
	}
	if json.Unmarshal([]byte(h.Get(headerInfo)), &info) == nil && info.User != "" {
		return info.User
	}
	return printable(h.Get(api.HeaderActor))
}

// printable is what may stand in a record and on a terminal, in one line.
func printable(text string) string {
	const most = 200
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, ""))
	return text[:min(len(text), most)]
}

// read reads what is asked. Nothing is the same as {}.
func (q *request) read(into any) error {
	if len(bytes.TrimSpace(q.data)) == 0 {
		return nil
	}
	strict := json.NewDecoder(bytes.NewReader(q.data))
	strict.DisallowUnknownFields()
	if err := strict.Decode(into); err != nil {
		return &api.Error{Code: api.BadRequest, Text: "the request is not the JSON that " + string(q.verb) + " takes: " + err.Error()}
	}
	return nil
}

// encode writes JSON as people read it, too.
func encode(answer any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(answer)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

// errorOf says of an error what to tell who asks.
func errorOf(err error) *api.Error {
	if said, ok := errors.AsType[*api.Error](err); ok {
		return said
	}
	said := &api.Error{Code: api.Unavailable, Text: err.Error()}
	_, field := errors.AsType[*envelope.FieldError](err)
	_, cancelled := errors.AsType[*campaign.CancelledError](err)
	switch {
	case field:
		said.Code = api.BadRequest
	case errors.Is(err, campaign.ErrNoCampaign), errors.Is(err, campaign.ErrNoDeadLetter):
		said.Code = api.NotFound
	case cancelled, errors.Is(err, campaign.ErrUnfinished):
		said.Code = api.Conflict
	case errors.Is(err, nats.ErrPermissionViolation):
		said.Code = api.Forbidden
	}
	return said
}
