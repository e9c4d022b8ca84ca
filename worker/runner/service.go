package runner

import (
	"context"
	"sync"

	"bulkmail/worker/service"
)

// serving is the worker's part in the service of the fleet, from when it begins to
// work: what is asked for needs what it makes on the broker first.
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
	})
	r.serving = s
	return nil
}

func (r *Runner) stopService(ctx context.Context) error {
	r.serving.cancel()
	r.serving.waiting.Wait()
	if r.serving.service == nil {
		return nil
	}
	return r.serving.service.Stop(ctx)
}
