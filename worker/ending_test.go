package worker

import (
	"testing"
	"testing/synctest"
)

func TestASlotGoesOnWhileOneBatchIsSettledAndWaitsForItBeforeTheNext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var end ending
		answer, second := make(chan struct{}), make(chan struct{})
		end.after(func() { <-answer }) // comes back although the broker has not answered
		waiting := true
		go func() {
			end.after(func() { close(second) })
			waiting = false
		}()
		synctest.Wait()
		if !waiting {
			t.Error("two batches of one slot are being settled")
		}
		close(answer)
		<-second
		end.steps.Wait()
	})
}
