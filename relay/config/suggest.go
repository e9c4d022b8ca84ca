package config

import (
	"strings"
)

// unknownKey is the reason given for a key that is not in the table.
func unknownKey(name string) string {
	if k := seedKey(name); k != nil {
		return "unknown key (did you mean " + k.Name + "?)"
	}
	names := make([]string, len(table))
	for i := range table {
		names[i] = table[i].Name
	}
	return "unknown key" + DidYouMean(name, names)
}

// DidYouMean is " (did you mean X?)", X being the candidate that is nearest to
// what was written; empty if none is near.
func DidYouMean(written string, candidates []string) string {
	const longest = 64 // nobody mistypes more, and distance is quadratic
	if len(written) > longest {
		return ""
	}
	best, least := "", len(written)/3+1
	for _, c := range candidates {
		if d := distance(strings.ToLower(written), strings.ToLower(c)); d < least {
			best, least = c, d
		}
	}
	if best == "" {
		return ""
	}
	return " (did you mean " + best + "?)"
}

// distance is the number of letters to insert, drop, change or swap with their
// neighbour that turns a into b.
func distance(a, b string) int {
	var before, last []int
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, last, row = last, row, make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			change := last[j-1]
			if a[i-1] != b[j-1] {
				change++
			}
			row[j] = min(change, last[j]+1, row[j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
	}
	return row[len(b)]
}
