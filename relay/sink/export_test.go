package sink

// Matches lets the tests hold a pattern against a key without a session.
func Matches(r Rule, key string) bool { return r.matches(key) }
