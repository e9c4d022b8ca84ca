package main

import (
	"testing"

	"bulkmail/envelope"
)

func TestTheMessageOfABenchHasTheSizeThatWasAskedFor(t *testing.T) {
	t.Parallel()
	for size := benchMinSize; size < benchMinSize+3*len(benchLine); size++ {
		raw := benchMessage(size)
		message := envelope.NewMessage(raw)
		if len(raw) != size || string(message.Wire()) != raw {
			t.Errorf("%d: it has %d octets, and on the wire %d", size, len(raw), len(message.Wire()))
		}
	}
}
