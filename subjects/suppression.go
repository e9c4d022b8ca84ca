package subjects

import "time"

// SuppressionChange is a message of the log of suppressions, as JSON: some names
// are suppressed from then on, or no longer. What the log says is what its
// changes, one after the other, come to.
type SuppressionChange struct {
	Time  time.Time     `json:"time"`
	Op    SuppressionOp `json:"op"`
	Scope string        `json:"scope,omitempty"` // "bulk", "all" or "list:NAME"; of a removal, empty: all of them
	Until time.Time     `json:"until,omitzero"`  // zero: for good
	Why   string        `json:"why,omitempty"`   // one line for people
	// Source is what made the change: "suppress", "import", "unsubscribe",
	// "bounce", "complaint". By is who, if that is known.
	Source string   `json:"source,omitempty"`
	By     string   `json:"by,omitempty"`
	Names  []string `json:"names"` // "ann@example.net", or "@example.net" for all mailboxes of a domain
}

// SuppressionOp is what a change of suppressions does.
type SuppressionOp string

// What changes of suppressions do.
const (
	Suppress SuppressionOp = "suppress"
	Release  SuppressionOp = "release"
)

// Scopes of suppressions.
const (
	ScopeBulk = "bulk"  // everything but campaigns of the kind transactional
	ScopeAll  = "all"   // everything
	ScopeList = "list:" // and its name: the campaigns of a list
)
