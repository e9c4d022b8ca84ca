package sink_test

import (
	"fmt"
	"strings"
	"testing"

	"bulkmail/relay/sink"
)

// BenchmarkPipelinedTransactions is one client with 100 recipients a
// transaction, all commands in one write and the message in another.
func BenchmarkPipelinedTransactions(b *testing.B) {
	const recipients = 100
	for name, opts := range map[string]sink.Options{
		"counted":  {},
		"recorded": {Recorder: func(sink.Transaction) {}},
	} {
		for _, size := range []int{1_000, 10_000} {
			b.Run(fmt.Sprintf("%s/%dB", name, size), func(b *testing.B) {
				c := greeted(b, start(b, opts))
				commands := []string{"MAIL FROM:<news@example.com>"}
				for i := range recipients {
					commands = append(commands, fmt.Sprintf("RCPT TO:<someone%d@example.net>", i))
				}
				commands = append(commands, "DATA")
				group := strings.Join(commands, "\r\n") + "\r\n"
				message := strings.Repeat(strings.Repeat("x", 70)+"\r\n", size/72) + ".\r\n"
				for b.Loop() {
					if _, err := c.tcp.Write([]byte(group)); err != nil {
						b.Fatal(err)
					}
					for range recipients + 2 {
						if _, err := c.ReadLineBytes(); err != nil {
							b.Fatal(err)
						}
					}
					if _, err := c.tcp.Write([]byte(message)); err != nil {
						b.Fatal(err)
					}
					if line, err := c.ReadLineBytes(); err != nil || line[0] != '2' {
						b.Fatalf("%s, %v", line, err)
					}
				}
				b.ReportMetric(float64(b.N*recipients)/b.Elapsed().Seconds(), "recipients/s")
			})
		}
	}
}
