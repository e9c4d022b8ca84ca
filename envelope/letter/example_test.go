package letter_test

import (
	"fmt"
	"log"
	"strings"

	"bulkmail/envelope/letter"
)

// A message is compiled once, and rendered for each recipient.
func Example() {
	template, err := letter.Compile("From: News <news@example.com>\nTo: {{name}} <{{to}}>\nSubject: Hi {{first|friend}}\nMIME-Version: 1.0\n\nDear {{first|friend}}, it is {{month}}.\n", letter.Options{})
	if err != nil {
		log.Fatal(err) // names the line and the column
	}
	batch := &letter.Batch{Campaign: "may", ID: "0001", Data: `{"month":"May"}`}
	var renderer letter.Renderer // one a goroutine
	for _, to := range []letter.Recipient{
		{To: "ann@example.net", Name: "Ann Lee", Data: `{"first":"Ann"}`},
		{To: "bob@example.org", Name: "Bob"},
		{To: "nameless@example.org"},
	} {
		l, err := renderer.Render(template, batch, &to, false)
		if err != nil {
			fmt.Println("not sent:", err)
			continue
		}
		fmt.Println(strings.ReplaceAll(string(l.Wire), "\r\n", "\n"))
	}
	// Output:
	// From: News <news@example.com>
	// To: Ann Lee <ann@example.net>
	// Subject: Hi Ann
	// MIME-Version: 1.0
	//
	// Dear Ann, it is May.
	//
	// From: News <news@example.com>
	// To: Bob <bob@example.org>
	// Subject: Hi friend
	// MIME-Version: 1.0
	//
	// Dear friend, it is May.
	//
	// not sent: {{name}} is missing and has no default
}
