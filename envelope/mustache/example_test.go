package mustache_test

import (
	"fmt"
	"log"
	"os"

	"bulkmail/envelope/mustache"
)

// printer writes a template as plain text.
type printer struct{}

func (printer) Literal(n *mustache.Node) error {
	_, err := os.Stdout.WriteString(n.Text)
	return err
}

func (printer) Value(_ *mustache.Node, text []byte) error {
	_, err := os.Stdout.Write(text)
	return err
}

func Example() {
	nodes, err := mustache.Parse("Dear {{first|friend}},{{#dates}} {{.}}{{/dates}}\n")
	if err != nil {
		log.Fatal(err)
	}
	var data mustache.Data
	var context mustache.Context
	for _, json := range []string{`{"first":"Ann","dates":["1 May","2 May"]}`, `{}`} {
		value, err := data.Read([]byte(json))
		if err != nil {
			log.Fatal(err)
		}
		context.Begin(value)
		if err := context.Execute(nodes, printer{}); err != nil {
			fmt.Println(err)
		}
	}
	// Output:
	// Dear Ann, 1 May 2 May
	// Dear friend,
}
