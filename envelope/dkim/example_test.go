package dkim_test

import (
	"fmt"
	"log"
	"strings"
	"time"

	"bulkmail/envelope/dkim"
)

func Example() {
	text, err := dkim.Generate("ed25519")
	if err != nil {
		log.Fatal(err)
	}
	key, err := dkim.NewKey("example.com", "s1", text)
	if err != nil {
		log.Fatal(err)
	}
	wire := []byte("From: news@news.example.com\r\nSubject: t\r\n\r\nhi\r\n")
	var signer dkim.Signer // one a goroutine
	fields, err := signer.Append(nil, wire, dkim.Keys{key}.For("news.example.com"), &dkim.Options{}, time.Now())
	if err != nil {
		log.Fatal(err)
	}
	first, _, _ := strings.Cut(string(fields), "\r\n")
	fmt.Println(first)
	// Output:
	// DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed; d=example.com;
}
