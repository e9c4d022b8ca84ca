package worker

import (
	"container/list"
	"context"
	"sync"
)

// A room is the memory that messages take: those of the batches in hand, and those
// that are kept for the next batches. Both together stay within a bound, so a batch
// may have to wait for its room.
//
// Batches come in in the order in which they asked, so that a large message is not
// passed by for ever by small ones. One that is larger than the whole room gets it
// alone.
//
// What is reckoned is what was measured: a message that is fetched, compiled and
// made takes up to four times its octets, one that is made again for a batch twice,
// and a batch three times what the broker delivered. Letters come on top, one for
// each session that sends one.
type room struct {
	bound Octets

	mu      sync.Mutex // guards what follows
	used    Octets
	inside  int        // batches that have their room
	waiting *list.List // of *guest, the first to come in at the front
	kept    map[string]*kept
	idle    *list.List // of *kept: those that no batch uses, the last used at the front
	unused  Octets     // what these take
}

const (
	freshCost   = 4 // what a message takes that is not there yet, of its octets
	keptCost    = 3 // what stays of it: compiled, and as it leaves
	ownCost     = 2 // what a batch takes that has to make it for itself, as it leaves and signed
	payloadCost = 3 // what a batch takes, of the octets that the broker delivered
)

// kept is a message that is there for whoever wants it, or being made.
type kept struct {
	key   string
	size  Octets // of the message
	cost  Octets
	users int
	at    *list.Element // in idle; nil: somebody uses it
	made  chan struct{} // closed when what follows is set

	message *message
	err     error
}

// A guest is a batch that wants its message.
type guest struct {
	key   string
	size  Octets // of the message
	cost  Octets // what it was given
	shown chan struct{}
	kept  *kept
	first bool // it is to make the message
}

func newRoom(bound Octets) *room {
	return &room{bound: bound, waiting: list.New(), kept: make(map[string]*kept), idle: list.New()}
}

// carry counts what a batch in hand carries anyway.
func (r *room) carry(payload int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.used += payloadCost * Octets(payload)
}

// drop is the end of that.
func (r *room) drop(payload int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.used -= payloadCost * Octets(payload)
	r.admit()
}

// enter waits for the room of a batch whose message is known by key and has so
// many octets. waits is called if that is not at once. A batch that entered has to
// leave.
func (r *room) enter(ctx context.Context, key string, size int, waits func(used Octets)) (*guest, error) {
	g := &guest{key: key, size: Octets(size), shown: make(chan struct{})}
	r.mu.Lock()
	place := r.waiting.PushBack(g)
	r.admit()
	used := r.used
	r.mu.Unlock()
	select {
	case <-g.shown:
		return g, nil
	default:
		waits(used)
	}
	select {
	case <-g.shown:
		return g, nil
	case <-ctx.Done():
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-g.shown: // meanwhile
		if g.first {
			r.madeLocked(g, nil, ctx.Err())
		}
		r.leaveLocked(g)
	default:
		r.waiting.Remove(place)
		r.admit() // who is next may be small
	}
	return nil, ctx.Err()
}

// admit lets in whoever is next, as long as there is room. The caller holds mu.
func (r *room) admit() {
	for r.waiting.Len() > 0 {
		g := r.waiting.Front().Value.(*guest)
		k := r.kept[g.key]
		switch {
		case k == nil:
			g.cost = freshCost * g.size
		case k.message != nil && k.message.shared():
			g.cost = 0
		default:
			g.cost = ownCost * g.size
		}
		for r.used+g.cost > r.bound && r.evict(k) {
		}
		if r.used+g.cost > r.bound && r.inside > 0 {
			return
		}
		r.waiting.Remove(r.waiting.Front())
		if g.first = k == nil; g.first {
			k = &kept{key: g.key, size: g.size, cost: keptCost * g.size, made: make(chan struct{})}
			r.kept[g.key] = k
			g.cost -= k.cost
			r.used += k.cost
		}
		if k.at != nil {
			r.idle.Remove(k.at)
			k.at = nil
			r.unused -= k.cost
		}
		k.users++
		g.kept = k
		r.used += g.cost
		r.inside++
		close(g.shown)
	}
}

// evict forgets the message that nobody has used for longest, but for one. The
// caller holds mu.
func (r *room) evict(but *kept) bool {
	e := r.idle.Back()
	if e != nil && e.Value.(*kept) == but {
		e = e.Prev()
	}
	if e == nil {
		return false
	}
	k := r.idle.Remove(e).(*kept)
	delete(r.kept, k.key)
	r.unused -= k.cost
	r.used -= k.cost
	return true
}

// made says what became of the message that g was to make.
func (r *room) made(g *guest, message *message, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.madeLocked(g, message, err)
}

func (r *room) madeLocked(g *guest, message *message, err error) {
	g.kept.message, g.kept.err = message, err
	close(g.kept.made)
	if err != nil {
		delete(r.kept, g.key) // others, who come later, ask again
		return
	}
	// What is encoded in two ways is larger than it was.
	cost := Octets(message.template.Octets()) + ownCost*g.size
	r.used += cost - g.kept.cost
	g.kept.cost = cost
}

// await is the message, made by whoever was first.
func (g *guest) await(ctx context.Context) (*message, error) {
	select {
	case <-g.kept.made:
		return g.kept.message, g.kept.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// leave gives back the room of a batch. Its message is kept for the next ones, with
// others as far as they take no more than a quarter of the bound.
func (r *room) leave(g *guest) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.leaveLocked(g)
}

func (r *room) leaveLocked(g *guest) {
	k := g.kept
	r.inside--
	r.used -= g.cost
	if k.users--; k.users == 0 {
		if r.kept[k.key] == k {
			k.at = r.idle.PushFront(k)
			r.unused += k.cost
		} else {
			r.used -= k.cost
		}
	}
	for r.unused > r.bound/4 && r.idle.Len() > 1 {
		r.evict(nil)
	}
	r.admit()
}
