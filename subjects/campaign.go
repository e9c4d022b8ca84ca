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

// CampaignKind tells mail that one can unsubscribe from.
type CampaignKind string

// The kinds of campaigns.
const (
	KindBulk          CampaignKind = "bulk"
	KindTransactional CampaignKind = "transactional" // receipts, passwords: nobody unsubscribes from them
)

// Campaign is the value kept under a campaign's name in the campaigns bucket,
// as JSON. Batches that are published by hand need none: a campaign without
// an entry is running.
type Campaign struct {
	State      CampaignState `json:"state"`
	Created    time.Time     `json:"created"`
	From       string        `json:"from,omitempty"`
	Message    string        `json:"message,omitempty"` // digest of the message as it was given to publish
	Date       time.Time     `json:"date,omitzero"`     // of the message, where it says none itself
	List       string        `json:"list,omitempty"`    // whom it is to, for unsubscribes: an id
	Kind       CampaignKind  `json:"kind,omitempty"`    // empty: bulk
	Batches    int           `json:"batches"`           // published so far
	Recipients int           `json:"recipients"`
	Complete   bool          `json:"complete"` // the whole list was published

	// Publishing is whose turn it is to publish, while somebody does.
	Publishing *CampaignTurn `json:"publishing,omitempty"`

	// Changes are the last changes of State, the newest last.
	Changes []CampaignChange `json:"changes,omitempty"`
}

// CampaignTurn says that a publication of the campaign goes on, as long as it
// changes.
type CampaignTurn struct {
	Owner string `json:"owner"` // told apart from every other one
	Beat  int    `json:"beat"`
}

// CampaignChange is one change of a campaign's state.
type CampaignChange struct {
	Time  time.Time     `json:"time"`
	State CampaignState `json:"state"`         // from then on
	By    string        `json:"by,omitempty"`  // who changed it, if that is known
	Why   string        `json:"why,omitempty"` // one line for people
}
