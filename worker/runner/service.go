package runner

import (
	"context"
	"sync"

	"bulkmail/subjects/tally"
	"bulkmail/worker/service"
)

// serving is the worker's part in what the fleet does beside sending: answering, and
// counting what became of recipients, which one worker does for all. It begins when
// the worker begins to work: both need what that makes on the broker first.
type serving struct {
	waiting sync.WaitGroup
	cancel  context.CancelFunc
	service *service.Service // nil: it has not begun
}

func (r *Runner) startService(ctx context.Context) error {
	s := new(serving)
	var waits context.Context
	waits, s.cancel = context.WithCancel(ctx)
	s.waiting.Go(func() {
		select {
		case <-r.worker.Working():
		case <-waits.Done():
			return
		}
		var err error
		s.service, err = service.Start(waits, r.js, r.names, service.Options{Worker: r.o.Name, Version: r.o.Version, Log: r.o.Log})
		if err != nil {
			r.o.Log.ErrorContext(waits, "nobody is answered", "error", err)
		}
		tally.NewTeller(r.js, r.names, r.o.Name, r.o.Log).Run(waits)
	})
	r.serving = s
	return nil
}

func (r *Runner) stopService(ctx context.Context) error {
	r.serving.cancel()
	r.serving.waiting.Wait() // a teller ends within the step's bound
	if r.serving.service == nil {
		return nil
	}
	return r.serving.service.Stop(ctx)
}
