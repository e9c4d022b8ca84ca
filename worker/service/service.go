// Package service answers what programs ask of the workers: the verbs of
// [api], as a NATS service that any of them may be asked for.
//
//   - [Start] adds the service to a connection; [Service.Stop] ends it when what
//     was asked has been answered.
//   - verbs.go: what each verb does. All of it is done by a [campaign.Client], with
//     the rights of the worker's user of the broker.
//   - answer.go: from a request to an answer or an error.
package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nats.go/micro"

	"bulkmail/subjects"
	"bulkmail/subjects/api"
	"bulkmail/subjects/campaign"
)

// atOnce is how many requests a worker answers at once. Others wait.
const atOnce = 8

// Options are what a worker says of itself. The zero value is fine.
type Options struct {
	Worker  string       // its name
	Version string       // of the program; what is no semantic version is 0.0.0
	Log     *slog.Logger // nil: nowhere
}

// A Service is what [Start] began.
type Service struct {
	names     subjects.Names
	campaigns *campaign.Client
	log       *slog.Logger
	most      int // octets of an answer

	service micro.Service
	work    context.Context //nolint:containedctx // of all that is being answered
	cut     context.CancelFunc
	slots   chan struct{}

	mu        sync.Mutex // guards what follows
	stopped   bool
	answering sync.WaitGroup
}

// Start answers requests under names, until Stop.
func Start(ctx context.Context, js jetstream.JetStream, names subjects.Names, o Options) (*Service, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Service{
		names: names, campaigns: campaign.New(js, names, campaign.Options{}), log: o.Log,
		most: int(js.Conn().MaxPayload()) - answerRoom, slots: make(chan struct{}, atOnce),
	}
	s.work, s.cut = context.WithCancel(context.WithoutCancel(ctx))
	var err error
	s.service, err = micro.AddService(js.Conn(), micro.Config{
		Name: names.Prefix(), Version: semantic(o.Version), Description: "bulk mail: campaigns and what becomes of them",
		Metadata: map[string]string{"worker": o.Worker},
		ErrorHandler: func(_ micro.Service, err *micro.NATSError) {
			o.Log.Warn("service reports", "subject", err.Subject, "error", err.Description)
		},
	})
	if err != nil {
		return nil, fmt.Errorf("service: %w", err)
	}
	for _, v := range api.Verbs() {
		err := s.service.AddEndpoint(string(v), micro.HandlerFunc(func(r micro.Request) { s.take(v, r) }), //nolint:contextcheck // what is answered ends with Stop
			micro.WithEndpointSubject(names.API(string(v), "*")))
		if err != nil {
			return nil, fmt.Errorf("service, %s: %w", v, stopped(s.service, err))
		}
	}
	return s, nil
}

func stopped(service micro.Service, err error) error {
	_ = service.Stop() // what went wrong before matters
	return err
}

// take answers a request beside the others.
func (s *Service) take(v api.Verb, r micro.Request) {
	s.slots <- struct{}{}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		<-s.slots
		_ = r.Error(strconv.Itoa(api.Unavailable), "the worker ends: ask again", nil) // nobody may wait any more
		return
	}
	s.answering.Go(func() {
		defer func() { <-s.slots }()
		s.answer(v, r)
	})
}

// Stop takes no more requests, and returns when those that were taken are answered
// or ctx ends.
func (s *Service) Stop(ctx context.Context) error {
	err := s.service.Stop()
	s.mu.Lock()
	s.stopped = true
	s.mu.Unlock()
	stop := context.AfterFunc(ctx, s.cut)
	defer stop()
	s.answering.Wait()
	s.cut()
	if err != nil && !errors.Is(err, nats.ErrConnectionClosed) {
		return fmt.Errorf("service: %w", err)
	}
	return nil
}

var semanticVersion = regexp.MustCompile(`^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?$`)

// semantic is a version as a service must have it.
func semantic(version string) string {
	if version = strings.TrimPrefix(version, "v"); semanticVersion.MatchString(version) {
		return version
	}
	return "0.0.0"
}
