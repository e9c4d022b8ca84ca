package bounce

import (
	"bytes"
	"encoding/base64"
	"html"
	"io"
	"mime/quotedprintable"
	"strings"
)

// A field is one of a header, unfolded.
type field struct{ name, value string }

// A header is read whatever is wrong with it, for so are bounces: lines that are
// no fields, continuations that are not indented, no blank line at the end.
type header []field

// get returns the first field of a name in lower case.
func (h header) get(name string) string {
	for _, f := range h {
		if f.name == name {
			return f.value
		}
	}
	return ""
}

func (h header) has(name string) bool {
	for _, f := range h {
		if f.name == name {
			return true
		}
	}
	return false
}

// readHeader returns the header of a mail or part, and what follows it.
func readHeader(b []byte) (header, []byte) {
	var r headerReader
	for len(b) > 0 {
		line, rest := cutLine(b)
		switch {
		case len(line) == 0:
			if r.name != "" || !startsWithField(rest) {
				return r.end(), rest
			}
		case !r.line(line):
			return r.end(), b
		}
		b = rest
	}
	return r.end(), nil
}

// headerReader is a header of which the last field may go on.
type headerReader struct {
	fields header
	name   string // of the last field
	value  []byte
}

// line adds a line, and reports whether it can be one of a header.
func (r *headerReader) line(line []byte) bool {
	if (line[0] == ' ' || line[0] == '\t') && r.name != "" {
		r.extend(line)
		return true
	}
	name, value, ok := cutField(line)
	switch {
	case ok:
		r.flush()
		r.name, r.value = name, append(r.value[:0], value...)
	case r.name == "":
		return bytes.HasPrefix(line, []byte("From ")) // of an mbox
	case bytes.HasSuffix(r.value, []byte(";")): // a continuation that is not indented
		r.extend(line)
	case bytes.HasPrefix(line, []byte("--")):
		return false
	}
	return true
}

func (r *headerReader) extend(line []byte) {
	if len(r.value)+len(line) < 4*maxLine {
		r.value = append(append(r.value, ' '), bytes.TrimSpace(line)...)
	}
}

func (r *headerReader) flush() {
	if r.name != "" && len(r.fields) < maxHeader {
		r.fields = append(r.fields, field{r.name, string(r.value)})
	}
	r.name = ""
}

func (r *headerReader) end() header {
	r.flush()
	return r.fields
}

func startsWithField(b []byte) bool {
	line, _ := cutLine(b)
	_, _, ok := cutField(line)
	return ok
}

func cutLine(b []byte) (line, rest []byte) {
	line, rest, _ = bytes.Cut(b, []byte("\n"))
	return bytes.TrimSuffix(line, []byte("\r")), rest
}

// cutField splits "Name: value"; the name is returned in lower case.
func cutField(line []byte) (name, value string, ok bool) {
	colon := bytes.IndexByte(line[:min(len(line), 80)], ':')
	if colon < 1 {
		return "", "", false
	}
	n := bytes.TrimRight(line[:colon], " \t")
	for _, c := range n {
		if c <= ' ' || c >= 0x7f {
			return "", "", false
		}
	}
	if len(line) > 4*maxLine {
		line = line[:4*maxLine]
	}
	return strings.ToLower(string(n)), string(bytes.TrimSpace(line[colon+1:])), len(n) > 0
}

// A part is a leaf of a mail's tree.
type part struct {
	mediaType string // lower case
	header    header
	body      []byte // decoded, but for the character set
}

// reading collects the parts of a mail in their order.
type reading struct {
	parts     []part
	truncated bool
}

// add adds a part, or the parts within it.
func (r *reading) add(h header, body []byte, depth int) {
	if len(r.parts) >= maxParts {
		r.truncated = true
		return
	}
	mediaType, params := cutParams(h.get("content-type"))
	if strings.HasPrefix(mediaType, "multipart/") && depth < maxDepth {
		if r.split(body, params, depth) {
			return
		}
		mediaType = "text/plain" // without its boundary it can still be read
	}
	if mediaType == "" || !strings.Contains(mediaType, "/") {
		mediaType = "text/plain"
	}
	r.parts = append(r.parts, part{mediaType, h, decode(body, h.get("content-transfer-encoding"))})
}

// split adds the parts of a multipart body, and reports whether there are any.
func (r *reading) split(body []byte, params string, depth int) bool {
	boundary := param(params, "boundary")
	if boundary == "" {
		return false
	}
	delimiter := []byte("--" + boundary)
	var start int
	inside, found := false, false
	for at := 0; at < len(body); {
		end := bytes.IndexByte(body[at:], '\n')
		next := at + end + 1
		if end < 0 {
			next = len(body)
		}
		line := bytes.TrimRight(body[at:next], " \t\r\n")
		if bytes.HasPrefix(line, delimiter) {
			tail := line[len(delimiter):]
			if len(tail) == 0 || bytes.Equal(tail, []byte("--")) {
				if inside {
					r.addRaw(body[start:at], depth)
				}
				found, start, inside = true, next, len(tail) == 0
			}
		}
		at = next
	}
	if inside {
		r.addRaw(body[start:], depth)
	}
	return found
}

func (r *reading) addRaw(b []byte, depth int) {
	if line, _ := cutLine(b); len(line) == 0 { // no header at all
		_, rest := cutLine(b)
		r.add(nil, rest, depth+1)
		return
	}
	h, body := readHeader(b)
	if !h.has("content-type") && !h.has("content-transfer-encoding") && !h.has("content-disposition") && !h.has("content-description") {
		// What should be a part's header is text, or the header of the returned message.
		h, body = nil, b
	}
	r.add(h, body, depth+1)
}

// decode undoes a transfer encoding as far as it is right.
func decode(b []byte, encoding string) []byte {
	var from io.Reader
	switch strings.ToLower(strings.TrimSpace(encoding)) {
	case "quoted-printable":
		from = quotedprintable.NewReader(bytes.NewReader(b))
	case "base64":
		from = base64.NewDecoder(base64.StdEncoding, bytes.NewReader(b))
	default:
		return b
	}
	decoded, err := io.ReadAll(from)
	if err != nil && len(decoded) < len(b)/4 {
		return b
	}
	return decoded
}

// cutParams splits a Content-Type into the media type, in lower case, and the rest.
func cutParams(value string) (mediaType, params string) {
	mediaType, params, _ = strings.Cut(value, ";")
	if m, more, ok := strings.Cut(strings.TrimSpace(mediaType), " "); ok { // a semicolon is missing
		mediaType, params = m, more+";"+params
	}
	return strings.ToLower(strings.TrimSpace(mediaType)), params
}

// param returns a parameter of a Content-Type.
func param(params, name string) string {
	for params != "" {
		params = strings.TrimLeft(params, "; \t")
		key, rest, ok := strings.Cut(params, "=")
		if !ok {
			return ""
		}
		rest = strings.TrimLeft(rest, " \t")
		var value string
		if strings.HasPrefix(rest, `"`) {
			value, params, _ = strings.Cut(rest[1:], `"`)
		} else {
			value, params, _ = strings.Cut(rest, ";")
			value = strings.TrimSpace(value)
		}
		if strings.EqualFold(strings.TrimSpace(key), name) {
			return value
		}
	}
	return ""
}

// plainText takes the tags off HTML, roughly: it is only searched for words.
func plainText(b []byte) []byte {
	var out bytes.Buffer
	for len(b) > 0 {
		lt := bytes.IndexByte(b, '<')
		if lt < 0 {
			out.Write(b)
			break
		}
		out.Write(b[:lt])
		b = b[lt:]
		tag := strings.ToLower(string(b[1:min(len(b), 8)]))
		end := []byte(">")
		for _, skipped := range [...]string{"style", "script"} {
			if strings.HasPrefix(tag, skipped) {
				end = []byte("</" + skipped)
			}
		}
		if strings.HasPrefix(tag, "br") || strings.HasPrefix(tag, "p") || strings.HasPrefix(tag, "/p") || strings.HasPrefix(tag, "/tr") || strings.HasPrefix(tag, "/div") || strings.HasPrefix(tag, "/li") {
			out.WriteByte('\n')
		}
		gt := bytes.Index(b, end)
		if gt < 0 {
			break
		}
		b = b[gt+len(end):]
		if len(end) > 1 {
			_, b, _ = bytes.Cut(b, []byte(">"))
		}
	}
	return []byte(html.UnescapeString(out.String()))
}
