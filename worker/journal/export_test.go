package journal

import "time"

// TryFor bounds one try of an append. It is for a journal that nobody uses yet.
func (j *Journal) TryFor(d time.Duration) { j.tryFor = d }
