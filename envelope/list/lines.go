package list

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"
)

// lines reads text line by line. A line ends with LF, CRLF or CR.
type lines struct {
	r      *bufio.Reader
	marked bool // a byte order mark says that all of it is UTF-8
	line   int  // number of the line read last
	read   int  // octets read
	buf    []byte
	other  []byte // buf, when it had to be brought into UTF-8
}

// openLines takes off what is around the text.
func openLines(r io.Reader, f *form) (*lines, error) {
	raw := bufio.NewReader(&steady{r: r})
	head, err := peek(raw, sniffed)
	if err != nil {
		return nil, err
	}
	if bytes.HasPrefix(head, []byte("\x1f\x8b")) {
		plain, err := gzip.NewReader(raw)
		if err != nil {
			return nil, &Error{Reason: fmt.Sprintf("it begins like a gzip file and is none: %v", err), Err: err}
		}
		f.gzip = true
		raw = bufio.NewReader(&steady{r: plain})
		if head, err = peek(raw, sniffed); err != nil {
			return nil, err
		}
	}
	if what := foreign(head); what != "" {
		return nil, &Error{Reason: what}
	}
	l := &lines{}
	decoded, charset := decoder(raw, head)
	if f.charset = charset; charset == "" {
		l.marked = bytes.HasPrefix(head, []byte(utf8Mark))
	} else {
		l.marked = true
	}
	// So large that the first line is in the sample whole, if it is one.
	l.r = bufio.NewReaderSize(decoded, maxRow+utf8.UTFMax)
	if l.marked {
		if mark, _ := l.r.Peek(len(utf8Mark)); string(mark) == utf8Mark {
			_, _ = l.r.Discard(len(utf8Mark))
		}
	}
	sample, _ := l.r.Peek(sniffed)
	if before, _, has := bytes.Cut(sample, []byte{0}); has {
		line := 1 + bytes.Count(before, []byte("\n"))
		return nil, &Error{Line: line, Reason: "it has a NUL and is no text: save the list as CSV or as text"}
	}
	if !l.marked && !utf8.Valid(trimPartial(sample)) {
		f.charset = "Windows-1252"
	}
	return l, nil
}

// peek shows the first octets. Whatever reading said, it will say again.
func peek(r *bufio.Reader, n int) ([]byte, error) {
	head, err := r.Peek(n)
	if err != nil && !errors.Is(err, io.EOF) && len(head) == 0 {
		return nil, broken(0, err)
	}
	return head, nil
}

// peekLines shows the first lines, and no more than maxRow octets. It waits for no
// more than that many lines, since a list may be written while it is published.
// whole tells whether that is all there is.
func peekLines(r *bufio.Reader, lines int) (head []byte, whole bool) {
	for {
		head, _ = r.Peek(r.Buffered())
		if len(head) >= maxRow || bytes.Count(head, []byte("\n")) >= lines {
			return head[:min(len(head), maxRow)], false
		}
		if _, err := r.Peek(len(head) + 1); err != nil {
			head, _ = r.Peek(r.Buffered())
			return head, errors.Is(err, io.EOF)
		}
	}
}

// trimPartial leaves out a character that is cut at the end.
func trimPartial(b []byte) []byte {
	for i := 1; i < utf8.UTFMax && i <= len(b); i++ {
		if c := b[len(b)-i]; utf8.RuneStart(c) {
			if !utf8.FullRune(b[len(b)-i:]) {
				return b[:len(b)-i]
			}
			break
		}
	}
	return b
}

// broken is an error of reading as an error of the list.
func broken(line int, err error) error {
	reason := err.Error()
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		reason = "the compressed file is cut off here: copy it anew"
	case errors.Is(err, gzip.ErrChecksum), errors.Is(err, gzip.ErrHeader):
		reason = fmt.Sprintf("the compressed file is damaged (%v): copy it anew", err)
	}
	return &Error{Line: line, Reason: reason, Err: err}
}

// sample is the first lines, which are still to be read.
func (l *lines) sample() []string {
	head, whole := peekLines(l.r, 2*judged+1)
	look := &lines{r: bufio.NewReaderSize(bytes.NewReader(head), maxRow), marked: l.marked}
	var sample []string
	for len(sample) <= 2*judged {
		line, err := look.next()
		if err != nil {
			break // the list itself will say so
		}
		if !whole && len(sample) > 0 && look.read == len(head) {
			break // perhaps not all of the line
		}
		sample = append(sample, string(line))
	}
	return sample
}

// next is the next line, without its end, in UTF-8; valid until the one after.
func (l *lines) next() ([]byte, error) {
	l.buf = l.buf[:0]
	for {
		if l.r.Buffered() == 0 {
			if _, err := l.r.Peek(1); errors.Is(err, io.EOF) && len(l.buf) > 0 {
				l.line++
				return l.text(), nil
			} else if errors.Is(err, io.EOF) {
				return nil, io.EOF
			} else if err != nil {
				return nil, broken(l.line+1, err)
			}
		}
		b, _ := l.r.Peek(l.r.Buffered())
		end := bytes.IndexAny(b, "\r\n")
		n := end
		if end < 0 {
			n = len(b)
		}
		if len(l.buf)+n > maxRow {
			return nil, tooLong(l.line+1, "line")
		}
		l.buf = append(l.buf, b[:n]...)
		if end < 0 {
			l.skip(n)
			continue
		}
		cr := b[end] == '\r'
		l.skip(n + 1)
		if cr {
			if lf, _ := l.r.Peek(1); len(lf) == 1 && lf[0] == '\n' {
				l.skip(1)
			}
		}
		l.line++
		return l.text(), nil
	}
}

func (l *lines) skip(n int) {
	l.read += n
	_, _ = l.r.Discard(n)
}

// text is the line in UTF-8. Where lists were put together, there are byte
// order marks within.
func (l *lines) text() []byte {
	text := l.buf
	switch {
	case utf8.Valid(text):
	case l.marked:
		l.other = append(l.other[:0], bytes.ToValidUTF8(text, []byte("\ufffd"))...)
		text = l.other
	default:
		l.other = appendWindows1252(l.other[:0], text)
		text = l.other
	}
	return bytes.TrimPrefix(text, []byte(utf8Mark))
}

func tooLong(line int, what string) error {
	return &Error{Line: line, Reason: fmt.Sprintf("the %s is longer than %d KB: a list has one recipient a line", what, maxRow>>10)}
}

// steady reads and keeps to its error: bufio forgets one that it has shown.
type steady struct {
	r   io.Reader
	err error
}

func (s *steady) Read(p []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	n, err := s.r.Read(p)
	s.err = err
	return n, err
}
