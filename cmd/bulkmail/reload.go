package main

import (
	"context"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"bulkmail/relay"
	relayconfig "bulkmail/relay/config"
)

// lookEvery is how often the relays file is looked at.
const lookEvery = time.Second

// A reloader keeps the relays of a worker as the relays file says.
type reloader struct {
	config
	configure func([]relay.Relay) relay.Changes
	outlets   relay.Outlets
	log       *slog.Logger
}

// reload reads the relays anew on SIGHUP, and when their file has changed and
// then stayed as it is for a moment, for an editor may be writing it. It ends
// with ctx.
func (r *reloader) reload(ctx context.Context) {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	read := r.stamp()
	seen := read
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangup:
			read = r.stamp()
			seen = read
			r.apply(ctx)
		case <-look.C:
			now := r.stamp()
			settled := now == seen
			seen = now
			if settled && now != read {
				read = now
				r.apply(ctx)
			}
		}
	}
}

// A stamp tells one state of a file from another.
type stamp struct {
	size     int64
	modified time.Time
	mode     fs.FileMode
}

// stamp is that of the relays file; zero where there is none.
func (r *reloader) stamp() stamp {
	if r.RelaysFile == "" {
		return stamp{}
	}
	info, err := os.Stat(r.RelaysFile)
	if err != nil {
		return stamp{}
	}
	return stamp{info.Size(), info.ModTime(), info.Mode()}
}

// apply makes the relays those that are configured now, as a whole or not at
// all.
func (r *reloader) apply(ctx context.Context) {
	configs, err := relayconfig.Load(r.Relays, r.RelaysFile, relayconfig.Options{})
	if err != nil {
		r.log.ErrorContext(ctx, "relays not changed, their configuration has problems", "problems", err)
		return
	}
	relays, err := relay.FromConfig(configs, r.outlets)
	if err != nil {
		r.log.ErrorContext(ctx, "relays not changed, their configuration has problems", "problems", err)
		return
	}
	c := r.configure(relays)
	if !c.Any() {
		r.log.InfoContext(ctx, "relays read again, nothing has changed")
		return
	}
	r.log.InfoContext(ctx, "relays changed", "added", c.Added, "removed", c.Removed, "changed", c.Changed)
}
