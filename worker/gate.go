package worker

import (
	"context"
	"sync"
	"time"
)

// A gate keeps a worker from pulling batches while nothing could be done about
// them. The zero gate is open.
type gate struct {
	mu     sync.Mutex
	until  time.Time
	opened chan struct{} // closed when the gate is opened before its time; nil: nobody waits
}

// shut shuts the gate until then, and tells whether that is longer than it was
// shut already.
func (g *gate) shut(until time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !until.After(g.until) {
		return false
	}
	g.until = until
	return true
}

// open opens the gate at once.
func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.until = time.Time{}
	if g.opened != nil {
		close(g.opened)
		g.opened = nil
	}
}

func (g *gate) isShut(now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return now.Before(g.until)
}

// pass waits until the gate is open; it reports false if ctx ended first.
func (g *gate) pass(ctx context.Context) bool {
	for {
		g.mu.Lock()
		wait := time.Until(g.until)
		if wait <= 0 {
			g.mu.Unlock()
			return ctx.Err() == nil
		}
		if g.opened == nil {
			g.opened = make(chan struct{})
		}
		opened := g.opened
		g.mu.Unlock()
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-opened:
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return false
		}
	}
}
