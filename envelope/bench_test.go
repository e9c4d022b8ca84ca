package envelope

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// batchOf is a batch of n recipients over so many domains, with the long tail
// of real lists: each domain has one recipient at least, and of the rest the
// i-th has a share of 1/i.
func batchOf(n, domains int) *Batch {
	b := &Batch{ID: "bench", From: "news@example.com", Message: "Subject: t\r\n\r\n" + strings.Repeat("A line of text.\r\n", 600)}
	credit := make([]float64, domains)
	for i := range n {
		most := i
		if i >= domains {
			most = 0
			for d := range credit {
				credit[d] += 1 / float64(d+1)
				if credit[d] > credit[most] {
					most = d
				}
			}
			credit[most] -= float64(domains)
		}
		b.Recipients = append(b.Recipients, Recipient{Address: fmt.Sprintf("user%04d@mail%03d.example.net", i, most)})
	}
	return b
}

func BenchmarkDecode(b *testing.B) {
	batch := batchOf(1000, 10)
	small := *batch
	small.Message = "Subject: t\r\n\r\nhi\r\n"
	for name, batch := range map[string]*Batch{"1000 recipients": &small, "1000 recipients, 10 KB message": batch} {
		data := batch.AppendJSON(nil)
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Decode(data); err != nil {
					b.Fatal(err)
				}
			}
		})
		// What it is measured against.
		b.Run(name+", encoding json", func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				var v struct {
					ID         string   `json:"id"`
					From       string   `json:"from"`
					Recipients []string `json:"recipients"`
					Message    string   `json:"message"`
					MessageRef string   `json:"message_ref"`
				}
				if err := json.Unmarshal(data, &v); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkAppendJSON(b *testing.B) {
	batch := batchOf(1000, 10)
	data := batch.AppendJSON(nil)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		data = batch.AppendJSON(data[:0])
	}
}

func BenchmarkParseAddress(b *testing.B) {
	for _, s := range []string{"user0001@mail001.example.net", "user0001@Mail001.Example.NET", "jörg@bücher.example"} {
		b.Run(s, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := ParseAddress(s); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkPlan(b *testing.B) {
	for _, domains := range []int{10, 300} {
		batch := batchOf(1000, domains)
		b.Run(fmt.Sprintf("1000 recipients in %d domains", domains), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if p := batch.Plan(nil); p.Recipients() != 1000 || len(p.Groups) != domains {
					b.Fatal(p.Recipients(), len(p.Groups))
				}
			}
		})
	}
}

func BenchmarkNewMessage(b *testing.B) {
	lf := "Subject: t\n\n" + strings.Repeat("A line of text as mail has it, of some 72 octets, and no more than that.\n", 140)
	for name, raw := range map[string]string{"10 KB with LF": lf, "10 KB with CRLF": strings.ReplaceAll(lf, "\n", "\r\n")} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(raw)))
			b.ReportAllocs()
			for b.Loop() {
				NewMessage(raw)
			}
		})
	}
}
