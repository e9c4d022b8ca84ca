package subjects

import (
	"strconv"
	"time"
	"unicode/utf8"
)

// AppendJSON appends the entry to dst as encoding/json writes it when it need
// not fear HTML: replies are full of < and >, and people read them. It is
// written by hand, since every recipient of every batch comes through here:
// BenchmarkAppendEntry compares the two.
func (e *Entry) AppendJSON(dst []byte) []byte {
	dst = e.Time.AppendFormat(append(dst, `{"time":"`...), time.RFC3339Nano)
	dst = appendString(append(dst, `","worker":`...), e.Worker)
	dst = strconv.AppendInt(append(dst, `,"attempt":`...), int64(e.Attempt), 10)
	dst = appendString(append(dst, `,"event":`...), string(e.Event))
	if len(e.Results) > 0 {
		dst = append(dst, `,"results":[`...)
		for i := range e.Results {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = e.Results[i].appendJSON(dst)
		}
		dst = append(dst, ']')
	}
	return append(dst, '}')
}

func (r *Results) appendJSON(dst []byte) []byte {
	dst = appendString(append(dst, `{"status":`...), string(r.Status))
	if r.Relay != "" {
		dst = appendString(append(dst, `,"relay":`...), r.Relay)
	}
	if r.Code != 0 {
		dst = strconv.AppendInt(append(dst, `,"code":`...), int64(r.Code), 10)
	}
	if r.Enhanced != "" {
		dst = appendString(append(dst, `,"enhanced":`...), r.Enhanced)
	}
	if r.Text != "" {
		dst = appendString(append(dst, `,"text":`...), r.Text)
	}
	if r.InDoubt {
		dst = append(dst, `,"in_doubt":true`...)
	}
	if r.Recipients == nil {
		return append(dst, `,"recipients":null}`...)
	}
	dst = append(dst, `,"recipients":[`...)
	for i, recipient := range r.Recipients {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendString(dst, recipient)
	}
	return append(dst, "]}"...)
}

func appendString(dst []byte, s string) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= ' ' && c < utf8.RuneSelf && c != '"' && c != '\\' {
			i++
			continue
		}
		r, size := rune(c), 1
		if c >= utf8.RuneSelf {
			r, size = utf8.DecodeRuneInString(s[i:])
			if r != '\u2028' && r != '\u2029' && (r != utf8.RuneError || size > 1) {
				i += size
				continue
			}
		}
		dst = append(dst, s[start:i]...)
		i += size
		start = i
		switch r {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\b':
			dst = append(dst, `\b`...)
		case '\f':
			dst = append(dst, `\f`...)
		case '\n':
			dst = append(dst, `\n`...)
		case '\r':
			dst = append(dst, `\r`...)
		case '\t':
			dst = append(dst, `\t`...)
		default:
			dst = append(dst, '\\', 'u', hex[r>>12&0xf], hex[r>>8&0xf], hex[r>>4&0xf], hex[r&0xf])
		}
	}
	return append(append(dst, s[start:]...), '"')
}
