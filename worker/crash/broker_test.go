//go:build crash

package crash_test

const brokerDir = "BULKMAIL_CRASH_BROKER_DIR"

func runBroker(string) int { return 1 }
