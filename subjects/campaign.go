package subjects

import "time"

// CampaignState is what workers may do with a campaign's batches.
type CampaignState string

// The states of a campaign.
const (
	CampaignRunning   CampaignState = "running"
	CampaignPaused    CampaignState = "paused"
	CampaignCancelled CampaignState = "cancelled"
)

// Campaign is the value kept under a campaign's name in the campaigns bucket,
// as JSON. Batches that are published by hand need none: a campaign without
// an entry is running.
type Campaign struct {
	State      CampaignState `json:"state"`
	Created    time.Time     `json:"created"`
	From       string        `json:"from,omitempty"`
	Message    string        `json:"message,omitempty"` // name of the message in the object store
	Batches    int           `json:"batches"`           // published so far
	Recipients int           `json:"recipients"`
	Complete   bool          `json:"complete"` // the whole list was published
}
