package bounce

import "strings"

// firstAddress returns the first thing in s that looks like an address.
func firstAddress(s string) string {
	address, _, _ := cutAddress(s)
	return address
}

// cutAddress finds the first address in s, and returns what stands before it,
// with a < or the like, and behind it.
func cutAddress(s string) (address, before, after string) {
	for from := 0; from < len(s); {
		at := strings.IndexByte(s[from:], '@')
		if at < 0 {
			break
		}
		at += from
		start, end := localStart(s, at), domainEnd(s, at)
		if start < at && end > at+1 && at-start <= 128 && end-at <= 256 {
			return s[start:end], s[:start], s[end:]
		}
		from = at + 1
	}
	return "", s, ""
}

// localStart returns where the local part before s[at] begins.
func localStart(s string, at int) int {
	if at > 1 && s[at-1] == '"' {
		if open := strings.LastIndexByte(s[:at-1], '"'); open >= 0 {
			return open
		}
	}
	start := at
	for start > 0 && isLocal(s[start-1]) {
		start--
	}
	for start < at && (s[start] == '\'' || s[start] == '.' || s[start] == '=' || s[start] == '*' || s[start] == '|' || s[start] == '/' || s[start] == '`') {
		start++ // quotation marks, ends of sentences
	}
	return start
}

func isLocal(c byte) bool {
	return c >= 0x80 || c > ' ' && strings.IndexByte(`()<>[]:;,@\"`, c) < 0 && c != 0x7f
}

// domainEnd returns where the domain behind s[at] ends.
func domainEnd(s string, at int) int {
	end := at + 1
	if end < len(s) && s[end] == '[' {
		if n := strings.IndexByte(s[end:], ']'); n > 0 {
			return end + n + 1
		}
		return end
	}
	for end < len(s) && (s[end] >= 0x80 || isAlnum(s[end]) || s[end] == '-' || s[end] == '.' || s[end] == '_') {
		end++
	}
	for end > at+1 && (s[end-1] == '.' || s[end-1] == '-') {
		end--
	}
	return end
}

func isAlnum(c byte) bool {
	return isDigit(c) || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

// addresses returns all addresses in a header field.
func addresses(s string) (all []string) {
	for len(all) < maxRecipients {
		address, _, after := cutAddress(s)
		if address == "" {
			return all
		}
		if len(all) == 0 || all[len(all)-1] != address { // ann@example.net <ann@example.net>
			all = append(all, address)
		}
		s = after
	}
	return all
}
