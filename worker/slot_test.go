package worker

import (
	"testing"
	"testing/synctest"
)

func TestASlotGoesOnWhileOneBatchIsSettledAndWaitsForItBeforeTheNext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &slot{settling: make(chan struct{}, 1)}
		first := &turn{slot: s, sent: make(chan struct{})}
		first.next()
		<-first.sent // the slot is free although the broker has not answered

		second := &turn{slot: s, sent: make(chan struct{})}
		waiting := true
		go func() {
			second.next()
			waiting = false
		}()
		synctest.Wait()
		if !waiting {
			t.Error("two batches of one slot are being settled")
		}
		first.end()
		<-second.sent
		second.end()

		// One that is never sent for frees its slot at its end.
		third := &turn{slot: s, sent: make(chan struct{})}
		third.end()
		<-third.sent
	})
}
