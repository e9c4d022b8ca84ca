package campaign

import "time"

// SetTurnOver shortens the time after which a publication that shows no sign of
// life has lost its turn.
func (c *Client) SetTurnOver(d time.Duration) { c.turnOver = d }
