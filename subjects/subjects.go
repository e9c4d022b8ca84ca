// Package subjects holds every name and wire type on the broker, and makes the
// streams, the consumer, the buckets and the object store.
//
// With the prefix "bulkmail":
//
//	batches       stream BULKMAIL_BATCHES, subject bulkmail.batches.<campaign>
//	journal       stream BULKMAIL_OUTCOMES, subject bulkmail.outcomes.<campaign>.<batch>
//	dead letters  stream BULKMAIL_DEAD, subject bulkmail.dead.<campaign>
//	feedback      stream BULKMAIL_FEEDBACK, subject bulkmail.feedback.<campaign>.<kind>
//	suppressions  stream BULKMAIL_SUPPRESSIONS, subject bulkmail.suppressions
//	messages      object store bulkmail-messages
//	campaigns     key-value bulkmail-campaigns
//	relays        key-value bulkmail-relays
//	keys          key-value bulkmail-keys: what workers make Message-IDs of where no file says it
//	workers       durable pull consumer "workers" on BULKMAIL_BATCHES
//
// The batch itself is [envelope.Batch]; a journal entry is [Entry], what came back a
// [FeedbackEvent], and a change of the suppressions a [SuppressionChange]. Formats are
// a public contract and kept stable by golden files.
package subjects

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// DefaultPrefix is the prefix of all names unless BULKMAIL_PREFIX says otherwise.
const DefaultPrefix = "bulkmail"

// Consumer is the durable pull consumer that all workers share.
const Consumer = "workers"

// maxID is the longest campaign or batch id.
const maxID = 64

// ValidID tells whether s can be a campaign or batch id: [A-Za-z0-9_-]{1,64}.
func ValidID(s string) bool {
	if s == "" || len(s) > maxID {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
		default:
			return false
		}
	}
	return true
}

// BatchID is the id under which a batch is journalled: the field id, else the
// Nats-Msg-Id header, else the batch's place in the stream. A header that
// cannot be a token is hashed. The place includes the time of storing, so that
// a stream made anew never meets the journal of an old one.
func BatchID(id, msgID string, sequence uint64, stored time.Time) string {
	switch {
	case id != "":
		return id
	case ValidID(msgID):
		return msgID
	case msgID != "":
		sum := sha256.Sum256([]byte(msgID))
		return hex.EncodeToString(sum[:16])
	}
	return strconv.FormatUint(sequence, 10) + "-" + strconv.FormatInt(stored.UnixNano(), 36)
}

// Names derives the names on the broker from a prefix. The zero value uses
// [DefaultPrefix].
type Names struct{ prefix string }

// New returns the names under prefix, which must be a valid id.
func New(prefix string) (Names, error) {
	if !ValidID(prefix) {
		return Names{}, fmt.Errorf("prefix %q: use 1 to %d letters, digits, - or _", prefix, maxID)
	}
	return Names{prefix}, nil
}

// Prefix is the first token of every subject.
func (n Names) Prefix() string {
	if n.prefix == "" {
		return DefaultPrefix
	}
	return n.prefix
}

// Batches is where the batches of a campaign are published.
func (n Names) Batches(campaign string) string { return n.Prefix() + ".batches." + campaign }

// Outcomes is the journal of one batch.
func (n Names) Outcomes(campaign, batch string) string {
	return n.Prefix() + ".outcomes." + campaign + "." + batch
}

// CampaignOutcomes matches the journals of a campaign's batches.
func (n Names) CampaignOutcomes(campaign string) string { return n.Outcomes(campaign, "*") }

// Dead is where the dead letters of a campaign go.
func (n Names) Dead(campaign string) string { return n.Prefix() + ".dead." + campaign }

// Feedback is where it is said what came back of a campaign's messages.
func (n Names) Feedback(campaign string, kind FeedbackKind) string {
	return n.Prefix() + ".feedback." + campaign + "." + string(kind)
}

// AllFeedback matches what came back of all campaigns.
func (n Names) AllFeedback() string { return n.Feedback("*", "*") }

// Suppressions is where it is said who is suppressed.
func (n Names) Suppressions() string { return n.Prefix() + ".suppressions" }

// BatchesStream is the work queue.
func (n Names) BatchesStream() string { return strings.ToUpper(n.Prefix()) + "_BATCHES" }

// OutcomesStream holds the journals.
func (n Names) OutcomesStream() string { return strings.ToUpper(n.Prefix()) + "_OUTCOMES" }

// DeadStream holds the dead letters.
func (n Names) DeadStream() string { return strings.ToUpper(n.Prefix()) + "_DEAD" }

// FeedbackStream holds what came back.
func (n Names) FeedbackStream() string { return strings.ToUpper(n.Prefix()) + "_FEEDBACK" }

// SuppressionStream is the log of who is suppressed.
func (n Names) SuppressionStream() string { return strings.ToUpper(n.Prefix()) + "_SUPPRESSIONS" }

// MessageStore is the object store for messages that batches refer to.
func (n Names) MessageStore() string { return n.Prefix() + "-messages" }

// CampaignBucket holds a [Campaign] under each campaign's name.
func (n Names) CampaignBucket() string { return n.Prefix() + "-campaigns" }

// RelayBucket holds the fleet's state of each relay.
func (n Names) RelayBucket() string { return n.Prefix() + "-relays" }

// KeyBucket keeps the keys that workers share where no file has them.
func (n Names) KeyBucket() string { return n.Prefix() + "-keys" }

// Campaign returns the campaign of a batch's, journal's or dead letter's
// subject, and the batch id where the subject has one.
func (n Names) Campaign(subject string) (campaign, batch string) {
	_, rest, _ := strings.Cut(strings.TrimPrefix(subject, n.Prefix()+"."), ".")
	campaign, batch, _ = strings.Cut(rest, ".")
	return campaign, batch
}

// Headers of a dead letter. The body is the batch as it was published, or what
// is left of it.
const (
	HeaderReason  = "Bulkmail-Reason"  // one line for people
	HeaderCause   = "Bulkmail-Cause"   // one of the causes below
	HeaderBatch   = "Bulkmail-Batch"   // the batch id
	HeaderAttempt = "Bulkmail-Attempt" // attempts made
	HeaderCodes   = "Bulkmail-Codes"   // the distinct last SMTP codes, blank-separated
)

// Causes of a dead letter.
const (
	CauseUnreadable = "unreadable" // nothing more is sent, and no journal says so
	CauseExpired    = "expired"    // the rest of a batch, whose journal says so too
)

// Tally is where the tally of a campaign is kept; of [AllCampaigns]: up to where
// all of them are.
func (n Names) Tally(campaign string) string { return n.Prefix() + ".tally." + campaign }

// TallyDetail is where the rest of it is kept.
func (n Names) TallyDetail(campaign string) string { return n.Tally(campaign) + ".detail" }

// TallyStream holds the tallies.
func (n Names) TallyStream() string { return strings.ToUpper(n.Prefix()) + "_TALLY" }

// AllCampaigns stands in the subjects of the service where no campaign is meant.
const AllCampaigns = "_"

// API is where workers answer a verb, about a campaign, a relay or neither:
// [AllCampaigns]; "*" is any.
func (n Names) API(verb, about string) string { return n.Prefix() + ".api." + verb + "." + about }
