package envelope

// toASCII maps a domain with U-labels or A-labels to checked A-labels.
func toASCII(s string) (domain, reason string) {
	return "", "international domain names are not supported yet"
}
