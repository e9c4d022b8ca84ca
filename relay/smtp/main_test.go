package smtp

import (
	"testing"

	"go.uber.org/goleak"

	"bulkmail/testdata/testrun"
)

func TestMain(m *testing.M) {
	testrun.AtOnce(6)
	testrun.RapidChecks(2000, 300) // a hundred random servers are too few; one costs half a millisecond
	goleak.VerifyTestMain(m)
}
