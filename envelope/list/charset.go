package list

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

const (
	utf8Mark = "\ufeff"
	sniffed  = 4096 // octets by which a file is known
)

// foreign says what to do with a file that is no list, "" if it may be one.
func foreign(head []byte) string {
	const csv = ": save the list as CSV (in Excel and LibreOffice: File, Save as, CSV UTF-8)"
	const unpack = ": unpack it first, or use gzip"
	for _, known := range []struct{ begins, what string }{
		{"PK\x03\x04", zipped(head)},
		{"PK\x05\x06", "it is an empty zip archive"},
		{"\xd0\xcf\x11\xe0", "it is an Excel workbook (.xls) or another Office document" + csv},
		{"%PDF-", "it is a PDF, which holds no list that a program could read" + csv},
		{`{\rtf`, "it is a rich text document: save it as plain text"},
		{"BZh", "it is compressed by bzip2" + unpack},
		{"\xfd7zXZ\x00", "it is compressed by xz" + unpack},
		{"\x28\xb5\x2f\xfd", "it is compressed by zstd" + unpack},
		{"7z\xbc\xaf\x27\x1c", "it is a 7z archive" + unpack},
		{"Rar!\x1a\x07", "it is a rar archive" + unpack},
		{"\x1f\x8b", "it is compressed twice: unpack it once"},
		{"SQLite format 3\x00", "it is a database: export the table as CSV"},
		{"PAR1", "it is a Parquet file: export it as CSV"},
		{"\xff\xfe\x00\x00", "it is UTF-32: save it as UTF-8"},
		{"\x00\x00\xfe\xff", "it is UTF-32: save it as UTF-8"},
	} {
		if bytes.HasPrefix(head, []byte(known.begins)) {
			return known.what
		}
	}
	text := strings.ToLower(string(bytes.TrimLeft(bytes.TrimPrefix(head[:min(len(head), 64)], []byte(utf8Mark)), " \t\r\n")))
	switch {
	case strings.HasPrefix(text, "<!doctype"), strings.HasPrefix(text, "<html"), strings.HasPrefix(text, "<head"), strings.HasPrefix(text, "<table"):
		return "it is a web page" + csv
	case strings.HasPrefix(text, "<?xml"):
		return "it is XML" + csv
	case strings.HasPrefix(text, "begin:vcard"):
		return "it is an address book of vCards: export it as CSV"
	}
	return ""
}

// zipped tells workbooks from other archives by the names of what is in them,
// which stand uncompressed.
func zipped(head []byte) string {
	switch {
	case bytes.Contains(head, []byte("opendocument.spreadsheet")):
		return "it is an OpenDocument spreadsheet (.ods): save the list as CSV (File, Save as, Text CSV)"
	case bytes.Contains(head, []byte("[Content_Types].xml")), bytes.Contains(head, []byte("xl/")):
		return "it is an Excel workbook (.xlsx) or another Office document: save the list as CSV (File, Save as, CSV UTF-8)"
	}
	return "it is a zip archive: unpack it first; if it is a spreadsheet, save the list as CSV"
}

// decoder brings text into UTF-8 if it is UTF-16, by its mark or because every
// second octet of its first characters is NUL.
func decoder(r *bufio.Reader, head []byte) (decoded io.Reader, charset string) {
	little := bytes.HasPrefix(head, []byte("\xff\xfe")) ||
		len(head) >= 4 && head[0] != 0 && head[1] == 0 && head[2] != 0 && head[3] == 0
	big := bytes.HasPrefix(head, []byte("\xfe\xff")) ||
		len(head) >= 4 && head[0] == 0 && head[1] != 0 && head[2] == 0 && head[3] != 0
	switch {
	case little:
		return &utf16Reader{r: r, order: binary.LittleEndian}, "UTF-16"
	case big:
		return &utf16Reader{r: r, order: binary.BigEndian}, "UTF-16"
	}
	return r, ""
}

// utf16Reader reads UTF-16 as UTF-8. Half a pair, or half a unit at the end, is
// U+FFFD.
type utf16Reader struct {
	r     *bufio.Reader
	order binary.ByteOrder
	high  rune // the first half of a pair, 0 if none is open
	out   []byte
	buf   []byte
}

func (u *utf16Reader) Read(p []byte) (int, error) {
	for len(u.out) == 0 {
		if err := u.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(p, u.out)
	u.out = u.out[n:]
	return n, nil
}

// fill decodes what the reader has at hand. Nothing was decoded when it fails.
func (u *utf16Reader) fill() error {
	u.buf = u.buf[:0]
	units, err := u.r.Peek(2)
	if err == nil {
		units, _ = u.r.Peek(u.r.Buffered() &^ 1)
	}
	if len(units) < 2 {
		if len(units) == 1 || u.high != 0 {
			_, _ = u.r.Discard(len(units))
			u.high = 0
			u.out = append(u.buf, "\ufffd"...)
			return nil
		}
		return err
	}
	for i := 0; i < len(units); i += 2 {
		u.unit(rune(u.order.Uint16(units[i:])))
	}
	_, _ = u.r.Discard(len(units))
	u.out = u.buf
	return nil
}

func (u *utf16Reader) unit(r rune) {
	if u.high != 0 {
		high := u.high
		u.high = 0
		if pair := utf16.DecodeRune(high, r); pair != utf8.RuneError {
			u.buf = utf8.AppendRune(u.buf, pair)
			return
		}
		u.buf = utf8.AppendRune(u.buf, utf8.RuneError)
	}
	if 0xd800 <= r && r < 0xdc00 {
		u.high = r
		return
	}
	u.buf = utf8.AppendRune(u.buf, r) // a lone second half becomes U+FFFD
}

// upper1252 is Windows-1252 from 0x80 to 0x9f; the rest is Latin-1.
var upper1252 = [32]rune{
	'€', utf8.RuneError, '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', utf8.RuneError, 'Ž', utf8.RuneError,
	utf8.RuneError, '‘', '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', utf8.RuneError, 'ž', 'Ÿ',
}

func appendWindows1252(dst, text []byte) []byte {
	for _, c := range text {
		switch {
		case c < 0x80:
			dst = append(dst, c)
		case c < 0xa0:
			dst = utf8.AppendRune(dst, upper1252[c-0x80])
		default:
			dst = utf8.AppendRune(dst, rune(c))
		}
	}
	return dst
}
