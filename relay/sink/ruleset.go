package sink

import (
	"hash/maphash"
	"strings"
	"sync"
)

// maxRemembered bounds what a rule with "first N" keeps in mind, some 40 MB a
// rule; a key beyond that is served as if it had had its N refusals.
const maxRemembered = 1 << 20

// A ruleSet is the rules in force, with what they have counted.
type ruleSet struct {
	phases map[Phase][]*liveRule
	seed   maphash.Seed
}

type liveRule struct {
	Rule

	mu   sync.Mutex     // guards seen
	seen map[uint64]int // hash of the key: times refused
}

func newRuleSet(rules []Rule) *ruleSet {
	set := &ruleSet{phases: map[Phase][]*liveRule{}, seed: maphash.MakeSeed()}
	for _, r := range rules {
		set.phases[r.phase] = append(set.phases[r.phase], &liveRule{Rule: r, seen: map[uint64]int{}})
	}
	return set
}

// find returns the first rule of the phase that applies to one of the keys, or
// nil, and counts the refusal for each key that the rule names.
func (set *ruleSet) find(phase Phase, keys ...string) *Rule {
	for _, r := range set.phases[phase] {
		applies := false
		for _, key := range keys {
			key = strings.ToLower(key)
			if r.matches(key) && r.spend(set.seed, key) {
				applies = true
				if r.first == 0 {
					break
				}
			}
		}
		if applies {
			return &r.Rule
		}
	}
	return nil
}

// spend takes one of the key's refusals and tells whether one was left.
func (r *liveRule) spend(seed maphash.Seed, key string) bool {
	if r.first == 0 {
		return true
	}
	h := maphash.String(seed, key)
	r.mu.Lock()
	defer r.mu.Unlock()
	n, known := r.seen[h]
	if n >= r.first || !known && len(r.seen) >= maxRemembered {
		return false
	}
	r.seen[h] = n + 1
	return true
}
