package keys_test

import (
	"fmt"
	"log"

	"bulkmail/envelope/keys"
)

// Whoever has the keys finds in a token whose subscription it is.
func Example() {
	file, err := keys.Parse("k1 iNJ8HBYQ5E8hKfpGvEZ0CDMh0mPrxUzMpSX9fOHPYb4\n")
	if err != nil {
		log.Fatal(err)
	}
	token := file.First().Maker().AppendToken(nil, keys.Subscription{Campaign: "may", List: "weekly", Mailbox: "ann@example.net"})
	fmt.Println(file.Read(string(token)))
	fmt.Println(file.Read("forged"))
	// Output:
	// {may weekly ann@example.net} true
	// {  } false
}
