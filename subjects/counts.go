package subjects

// Counts are the recipients of a campaign by what is known of them. Their sum is
// how many were published.
type Counts struct {
	Queued     int `json:"queued"` // nothing yet
	Deferred   int `json:"deferred"`
	Accepted   int `json:"accepted"`
	Rejected   int `json:"rejected"`
	Expired    int `json:"expired"`
	Suppressed int `json:"suppressed"`
	Cancelled  int `json:"cancelled"`
	InDoubt    int `json:"in_doubt"`
}

// of is where a status is counted; nil: nowhere.
func (c *Counts) of(s Status) *int {
	switch s {
	case Deferred:
		return &c.Deferred
	case Accepted:
		return &c.Accepted
	case Rejected:
		return &c.Rejected
	case Expired:
		return &c.Expired
	case Suppressed:
		return &c.Suppressed
	case Cancelled:
		return &c.Cancelled
	case InDoubt:
		return &c.InDoubt
	}
	return nil
}

// Of is how many recipients have that status.
func (c Counts) Of(s Status) int {
	if n := c.of(s); n != nil {
		return *n
	}
	return 0
}

// Add counts n more recipients with that status.
func (c *Counts) Add(s Status, n int) {
	if of := c.of(s); of != nil {
		*of += n
	}
}

// Left is how many recipients have no final outcome.
func (c Counts) Left() int { return c.Queued + c.Deferred }

// Final is how many recipients have one.
func (c Counts) Final() int {
	return c.Accepted + c.Rejected + c.Expired + c.Suppressed + c.Cancelled + c.InDoubt
}
