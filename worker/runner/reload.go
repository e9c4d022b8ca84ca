package runner

import (
	"context"
	"io/fs"
	"os"
	"time"

	"bulkmail/relay"
)

// lookEvery is how often the relays file is looked at.
const lookEvery = time.Second

// A stamp tells one state of a file from another.
type stamp struct {
	size     int64
	modified time.Time
	mode     fs.FileMode
}

// stampOf is that of a file; zero where there is none.
func stampOf(file string) stamp {
	info, err := os.Stat(file)
	if err != nil {
		return stamp{}
	}
	return stamp{info.Size(), info.ModTime(), info.Mode()}
}

// follow reads the relays anew when somebody asks for that, and when their file
// has changed and then stayed as it is for a moment, for an editor may be
// writing it. It ends with ctx.
func (r *Runner) follow(ctx context.Context) {
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	read := r.stamp
	seen := read
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.asked:
			read = stampOf(r.o.RelaysFile)
			seen = read
			r.readAgain(ctx)
		case <-look.C:
			now := stampOf(r.o.RelaysFile)
			settled := now == seen
			seen = now
			if settled && now != read {
				read = now
				r.readAgain(ctx)
			}
		}
	}
}

// readAgain makes the relays those that RelayURLs and RelaysFile describe now,
// as a whole or not at all.
func (r *Runner) readAgain(ctx context.Context) {
	changes, err := r.reread() //nolint:contextcheck // sessions that it opens belong to the pool
	switch {
	case err != nil:
		r.o.Log.ErrorContext(ctx, "relays not changed, their configuration has problems", "problems", err)
	case !changes.Any():
		r.o.Log.InfoContext(ctx, "relays read again, nothing has changed")
	default:
		r.o.Log.InfoContext(ctx, "relays changed", "added", changes.Added, "removed", changes.Removed, "changed", changes.Changed)
	}
}

func (r *Runner) reread() (relay.Changes, error) {
	read, err := r.o.readRelays()
	if err != nil {
		return relay.Changes{}, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.use(r.own, read)
}
