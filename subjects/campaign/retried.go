package campaign

import (
	"strings"

	"bulkmail/subjects"
)

// retried counts the expired recipients of a campaign's batches by the relay that
// deferred them last. Whoever expired and was published again by [Client.RetryDead]
// is in two batches, and counts in the newer one alone, as soon as that says
// anything of them.
type retried map[string]map[string]int

// fold takes in a change of a recipient in a batch's journal. again says that one
// recipient who expired, at that relay, is not expired any more.
func (r retried) fold(batch string, before, after *subjects.Result) (relay string, again bool) {
	if after.Status == subjects.Expired {
		if r[batch] == nil {
			r[batch] = make(map[string]int)
		}
		r[batch][after.Relay]++
	}
	if before != nil {
		return "", false
	}
	of := r[retriedBatch(batch)]
	for relay, n := range of {
		if of[relay]--; n == 1 {
			delete(of, relay)
		}
		return relay, true
	}
	return "", false
}

// retriedBatch is the batch whose dead letter became this one, "" if it was made of
// none: see [retryID].
func retriedBatch(batch string) string {
	i := strings.LastIndex(batch, "-r")
	if i < 0 || strings.Trim(batch[i+2:], "0123456789") != "" {
		return ""
	}
	return batch[:i]
}
