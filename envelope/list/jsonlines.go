package list

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"
)

// jsonRows reads one object a line.
type jsonRows struct {
	lines   *lines
	options Options
	found   []mailbox
	entries []Entry
}

func (j *jsonRows) row() ([]Entry, bool, error) {
	text, err := j.lines.next()
	if err != nil {
		return nil, false, err
	}
	text = bytes.TrimSpace(text)
	if len(text) == 0 || text[0] == '#' {
		return nil, false, nil
	}
	line := j.lines.line
	j.entries = j.entries[:0]
	object, reason := object(text)
	if reason == "" {
		reason, err = j.recipient(line, object)
	}
	if err != nil {
		return nil, false, err
	}
	if reason != "" {
		j.entries = append(j.entries, unusable(line, string(text), reason))
	}
	return j.entries, len(j.entries) == 0, nil
}

// object reads one line.
func object(text []byte) (map[string]json.RawMessage, string) {
	if text[0] != '{' {
		return nil, "not a JSON object"
	}
	var object map[string]json.RawMessage
	if err := json.Unmarshal(text, &object); err != nil {
		if strings.Contains(err.Error(), "unexpected end") {
			return nil, "the JSON object does not end in its line"
		}
		return nil, "not JSON: " + err.Error()
	}
	return object, ""
}

// recipient makes the entries of an object.
func (j *jsonRows) recipient(line int, object map[string]json.RawMessage) (reason string, err error) {
	key := j.addressKey(object)
	if key == "" {
		if j.options.Column != "" {
			return fmt.Sprintf("no key %q", j.options.Column), nil
		}
		return `no key "to" or "email"`, nil
	}
	address, ok := text(object[key])
	if !ok {
		return fmt.Sprintf("%q is not a string", key), nil
	}
	name, ok := text(object["name"])
	if said := object["name"]; !ok && said != nil && string(said) != "null" {
		return `"name" is not a string`, nil
	}
	if j.found, reason = mailboxes(j.found[:0], address); reason != "" && trim(address) != "" {
		j.entries = append(j.entries, unusable(line, address, reason))
		return "", nil
	}
	var data json.RawMessage
	if j.options.Data {
		if data = dataOf(object, key); len(data) > maxData {
			return "", tooMuch(line)
		}
	}
	for _, m := range j.found {
		if trim(name) != "" {
			m.name = trim(name)
		}
		j.entries = append(j.entries, Entry{Line: line, To: m.to, Name: m.name, Data: data})
	}
	return "", nil
}

// addressKey is the key of the address: the one that was asked for, or the one
// whose name speaks for it best.
func (j *jsonRows) addressKey(object map[string]json.RawMessage) string {
	if column := j.options.Column; column != "" {
		for _, key := range slices.Sorted(maps.Keys(object)) {
			if strings.EqualFold(key, column) {
				return key
			}
		}
		return ""
	}
	for _, key := range []string{"to", "email"} {
		if _, ok := object[key]; ok {
			return key
		}
	}
	best, rank := "", mentioned
	for _, key := range slices.Sorted(maps.Keys(object)) {
		if r := rankOf(key); r < rank {
			best, rank = key, r
		}
	}
	return best
}

// dataOf is the data of a recipient: its key data if it is written as in a batch,
// else all that is neither address nor name.
func dataOf(object map[string]json.RawMessage, key string) json.RawMessage {
	rest := maps.Clone(object)
	delete(rest, key)
	delete(rest, "name")
	if data := rest["data"]; len(rest) == 1 && data != nil && data[0] == '{' {
		return data
	}
	if len(rest) == 0 {
		return nil
	}
	// Sorted by key, so that the same list makes the same batches.
	var b bytes.Buffer
	b.WriteByte('{')
	for i, key := range slices.Sorted(maps.Keys(rest)) {
		if i > 0 {
			b.WriteByte(',')
		}
		quoted, _ := json.Marshal(key)
		b.Write(quoted)
		b.WriteByte(':')
		b.Write(rest[key])
	}
	b.WriteByte('}')
	return b.Bytes()
}

// text is a JSON string.
func text(raw json.RawMessage) (string, bool) {
	var s string
	if len(raw) == 0 || raw[0] != '"' || json.Unmarshal(raw, &s) != nil {
		return "", false
	}
	return strings.ToValidUTF8(s, string(utf8.RuneError)), true
}

// jsonArray tells whether a list begins as a JSON array. An address does not
// begin with a bracket.
func jsonArray(first string) bool {
	rest, ok := strings.CutPrefix(first, "[")
	rest = strings.TrimSpace(rest)
	return ok && (rest == "" || strings.ContainsAny(rest[:1], `{["]`))
}
