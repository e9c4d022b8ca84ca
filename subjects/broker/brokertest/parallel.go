package brokertest

import (
	"flag"
	"strconv"
)

// AtOnce lets so many tests run at a time where -parallel says nothing. It is for
// the TestMain of packages whose tests wait for brokers, timeouts and processes
// more than they reckon, so that a processor can serve several.
func AtOnce(tests int) {
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if given {
		return
	}
	if err := flag.Set("test.parallel", strconv.Itoa(tests)); err != nil {
		panic(err) // no test binary
	}
}
