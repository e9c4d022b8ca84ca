package requirements_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"bulkmail/envelope/requirements"
)

func Example() {
	findings, err := requirements.Check(context.Background(), "From: News <news@gmail.com>\nTo: {{to}}\nSubject: t\n\nUnsubscribe: {{unsubscribe_url}}\n",
		requirements.Setup{UnsubscribeURL: "https://news.example.com/u/", Now: time.Now()})
	if err != nil {
		log.Fatal(err)
	}
	for _, f := range findings {
		fmt.Println(f.Rule)
	}
	// Output:
	// own-domain
	// dkim
}
