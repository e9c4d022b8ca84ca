// Package testrun says how tests run: how many at a time, and how often they do
// what they do many times.
package testrun

import (
	"flag"
	"os"
	"strconv"
)

// AtOnce lets so many tests run at a time where -parallel says nothing. It is for
// the TestMain of packages whose tests wait for brokers, timeouts and processes
// more than they reckon, so that a processor can serve several.
func AtOnce(tests int) { unlessGiven("test.parallel", tests) }

// RapidChecks is how many random cases the property tests of a package try where
// -rapid.checks says nothing; see [InFull].
func RapidChecks(inFull, enough int) { unlessGiven("rapid.checks", InFull(inFull, enough)) }

func unlessGiven(name string, n int) {
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == name })
	if given {
		return
	}
	if err := flag.Set(name, strconv.Itoa(n)); err != nil {
		panic(err) // no test binary
	}
}

// InFull is how often a test does what it does many times: in full where
// BULKMAIL_TESTS_IN_FULL says so, as .ci/run does, and else as often as is enough
// to see what a change broke.
func InFull(inFull, enough int) int {
	if os.Getenv("BULKMAIL_TESTS_IN_FULL") != "" {
		return inFull
	}
	return enough
}
