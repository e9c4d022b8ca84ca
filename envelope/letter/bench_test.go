package letter

import (
	"fmt"
	"strings"
	"testing"
)

// benchTemplate has some 10 KB, with five fields in plain text and in HTML.
func benchTemplate(encoding string) string {
	plain := "Dear {{first}} {{last}},\n" + strings.Repeat("A line of text as mail has it, of some 72 octets, and no more than that.\n", 40) +
		"Your number is {{number}}, your town {{town}}: https://www.example.com/{{code}}?t={{town}}\n"
	html := "<p>Dear {{first}} {{last}},</p>\n" + strings.Repeat("<p style=\"margin: 0\">A line of text as mail has it, with a <b>few</b> tags and no more than that.</p>\n", 65) +
		"<p>Your number is {{number}}, your town {{town}}: <a href=\"https://www.example.com/{{code}}?t={{town}}\">here</a></p>\n"
	if encoding == "quoted-printable" {
		plain, html = strings.ReplaceAll(plain, "=", "=3D"), strings.ReplaceAll(html, "=", "=3D")
	}
	return "From: News <news@example.com>\nTo: {{name}} <{{to}}>\nSubject: {{first}}, the news\nMIME-Version: 1.0\n" +
		"Content-Type: multipart/alternative; boundary=b\n\n" +
		"--b\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: " + encoding + "\n\n" + plain +
		"--b\nContent-Type: text/html; charset=utf-8\nContent-Transfer-Encoding: " + encoding + "\n\n" + html + "--b--\n"
}

func BenchmarkRender(b *testing.B) {
	for _, encoding := range []string{"quoted-printable", "8bit"} {
		b.Run(encoding, func(b *testing.B) {
			t := compile(b, benchTemplate(encoding))
			batch := batch(b, `{"month":"May"}`)
			batch.UnsubscribeURL, batch.List = "https://u.example.com/", "weekly"
			var to []Recipient
			for i := range 100 {
				to = append(to, Recipient{
					To: fmt.Sprintf("user%04d@mail.example.net", i), Name: "Jörg Lee",
					Data: fmt.Sprintf(`{"first":"J\u00f6rg","last":"Lee %d","number":%d,"town":"Zürich & Köln","code":"a/b%d"}`, i, i, i),
				})
			}
			var r Renderer
			i := 0
			b.ReportAllocs()
			for b.Loop() {
				l, err := r.Render(t, batch, &to[i%len(to)], false)
				if err != nil {
					b.Fatal(err)
				}
				b.SetBytes(int64(len(l.Wire)))
				i++
			}
		})
	}
}

func TestALetterAllocatesTheSameHoweverLongItIs(t *testing.T) {
	count := func(lines int) float64 {
		tp := compile(t, "From: a@example.com\nTo: {{name}} <{{to}}>\nSubject: {{first}}\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n\n"+strings.Repeat("Dear {{first}}, f=C3=BCr {{last}}\n", lines))
		b := batch(t, "")
		to := &Recipient{To: "ann@example.net", Name: "Ann", Data: `{"first":"J\u00f6rg","last":"Müller"}`}
		var r Renderer
		return testing.AllocsPerRun(20, func() {
			if _, err := r.Render(tp, b, to, false); err != nil {
				t.Fatal(err)
			}
		})
	}
	if few, many := count(1), count(1000); few != many || few > 20 {
		t.Errorf("%v allocations for a line, %v for 1,000", few, many)
	}
}
