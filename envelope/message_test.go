package envelope

import (
	"strings"
	"testing"
)

func TestAMessageIsMadeFitForTheWireOnce(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, raw, wire string
		size            int64
	}{
		{"CRLF stays", "Subject: t\r\n\r\nhi\r\n", "Subject: t\r\n\r\nhi\r\n", 18},
		{"LF becomes CRLF", "Subject: t\n\nhi\n", "Subject: t\r\n\r\nhi\r\n", 18},
		{"CR becomes CRLF", "Subject: t\r\rhi\r", "Subject: t\r\n\r\nhi\r\n", 18},
		{"a mixture", "Subject: t\n\r\na\rb\r\r\nc", "Subject: t\r\n\r\na\r\nb\r\n\r\nc\r\n", 25},
		{"the last line end is added", "Subject: t\n\nhi", "Subject: t\r\n\r\nhi\r\n", 18},
		{"a header alone", "Subject: t", "Subject: t\r\n", 12},
		{"a folded header", "Subject: t\n folded\n\tagain\n\n", "Subject: t\r\n folded\r\n\tagain\r\n\r\n", 31},
		{"dots are stuffed and not counted", "Subject: t\n\n.\n..\n.a\nb.\n", "Subject: t\r\n\r\n..\r\n...\r\n..a\r\nb.\r\n", 29},
		{"no end of data is smuggled", "Subject: t\n\na\n.\r\nMAIL FROM:<b@example.com>\n", "Subject: t\r\n\r\na\r\n..\r\nMAIL FROM:<b@example.com>\r\n", 47},
		{"nor with a bare CR", "Subject: t\n\na\r.\rb", "Subject: t\r\n\r\na\r\n..\r\nb\r\n", 23},
		{"a line of 998", "Subject: t\n\n" + strings.Repeat("x", 998), "Subject: t\r\n\r\n" + strings.Repeat("x", 998) + "\r\n", 1014},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			m := NewMessage(test.raw)
			if string(m.Wire()) != test.wire || m.Size() != test.size {
				t.Errorf("%d octets before stuffing, want %d:\n got %q\nwant %q", m.Size(), test.size, m.Wire(), test.wire)
			}
		})
	}
}

func TestAMessageTellsWhatItAsksOfARelay(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		raw            string
		eightBit, utf8 bool
	}{
		{"Subject: t\n\nhi\n", false, false},
		{"Subject: t\n\nfür\nhi\n", true, false},
		{"Subject: t\n\nf\xfcr\n", true, false},
		{"Subject: für\nTo: a@b.test\n\nhi\n", false, true},
		{"Subject: t\n für\n\nf\xfcr\n", true, true},
	} {
		if m := NewMessage(test.raw); m.EightBit() != test.eightBit || m.UTF8() != test.utf8 {
			t.Errorf("%q: 8-bit %v, UTF-8 %v", test.raw, m.EightBit(), m.UTF8())
		}
	}
}
