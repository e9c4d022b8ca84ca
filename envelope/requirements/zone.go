package requirements

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// A Zone is the TXT records of a zone file (RFC 1035 5.1).
type Zone map[string][]string

// ParseZone reads the TXT records of a zone file and passes over the others.
// Names that do not end with a dot are beneath $ORIGIN.
func ParseZone(text string) (Zone, error) {
	z := make(Zone)
	origin, owner := "", ""
	for number, line := range joined(text) {
		fields, err := zoneFields(line)
		if err != nil {
			return nil, fmt.Errorf("%w: line %d: %w", ErrZone, number, err)
		}
		if len(fields) == 0 {
			continue
		}
		if strings.EqualFold(fields[0], "$ORIGIN") && len(fields) > 1 {
			origin = strings.TrimSuffix(strings.ToLower(fields[1]), ".")
			continue
		}
		if line[0] != ' ' && line[0] != '\t' {
			owner = absolute(fields[0], origin)
			fields = fields[1:]
		}
		for i, f := range fields {
			if strings.EqualFold(f, "TXT") {
				z[owner] = append(z[owner], strings.Join(fields[i+1:], ""))
				break
			}
		}
	}
	return z, nil
}

// LookupTXT is the texts at the name.
func (z Zone) LookupTXT(_ context.Context, name string) ([]string, error) {
	return z[strings.ToLower(strings.TrimSuffix(name, "."))], nil
}

func absolute(name, origin string) string {
	name = strings.ToLower(name)
	if rest, ok := strings.CutSuffix(name, "."); ok {
		return rest
	}
	if name == "@" {
		return origin
	}
	if origin == "" {
		return name
	}
	return name + "." + origin
}

// joined yields the lines, those in parentheses as one, with the number of the
// first.
func joined(text string) func(yield func(int, string) bool) {
	return func(yield func(int, string) bool) {
		var b strings.Builder
		first, open := 0, 0
		for i, line := range strings.Split(text, "\n") {
			quoted, escaped := false, false
			if open == 0 {
				first = i + 1
			}
		scan:
			for _, c := range strings.TrimSuffix(line, "\r") {
				switch {
				case escaped:
					escaped = false
				case c == '\\':
					escaped = true
				case c == '"':
					quoted = !quoted
				case quoted:
				case c == ';':
					break scan
				case c == '(':
					open++
					c = ' '
				case c == ')':
					open = max(0, open-1)
					c = ' '
				}
				b.WriteRune(c)
			}
			b.WriteByte(' ')
			if open > 0 {
				continue
			}
			if strings.TrimSpace(b.String()) != "" && !yield(first, b.String()) {
				return
			}
			b.Reset()
		}
	}
}

// zoneFields are the fields of a line, quotes and backslashes taken off.
func zoneFields(line string) ([]string, error) {
	var fields []string
	for i := 0; i < len(line); {
		switch c := line[i]; {
		case c == ' ' || c == '\t':
			i++
		case c == '"':
			var b strings.Builder
			for i++; i < len(line) && line[i] != '"'; i++ {
				if line[i] == '\\' && i+1 < len(line) {
					i++
				}
				b.WriteByte(line[i])
			}
			if i == len(line) {
				return nil, errors.New("a quote is not closed")
			}
			i++
			fields = append(fields, b.String())
		default:
			start := i
			for i < len(line) && line[i] != ' ' && line[i] != '\t' {
				i++
			}
			fields = append(fields, line[start:i])
		}
	}
	return fields, nil
}
