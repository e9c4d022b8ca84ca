// Plain is what somebody would write who needs letters by this evening: html/template,
// quoted-printable and net/smtp over connections that are kept, and go-msgauth for
// signatures. It has no queue, retries nothing and records nothing. testdata/bench/full
// measures it beside bulkmail; it prints how many letters a second it sent.
package main

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"flag"
	"fmt"
	"html/template"
	"log"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net/smtp"
	"net/textproto"
	"strings"
	"sync"
	text "text/template"
	"time"

	"github.com/emersion/go-msgauth/dkim"
)

type recipient struct {
	Address, First, Last, Town, Code string
	Number                           int
}

var plainText = text.Must(text.New("").Parse("Dear {{.First}} {{.Last}},\n" +
	strings.Repeat("A line of text as mail has it, of some seventy octets, and no more.\n", 47) +
	"Your number is {{.Number}}, your town {{.Town}}:\nhttps://www.bench.test/{{urlquery .Code}}\n"))

var htmlText = template.Must(template.New("").Parse("<p>Dear {{.First}} {{.Last}},</p>\n" +
	strings.Repeat("<p>A line of text as mail has it, with a <b>few</b> tags and no more.</p>\n", 86) +
	"<p>Your number is {{.Number}}, your town {{.Town}}:\n<a href=\"https://www.bench.test/{{.Code}}\">here</a></p>\n"))

// letter is the message for one recipient.
func letter(r *recipient, sign *dkim.SignOptions) ([]byte, error) {
	var b bytes.Buffer
	parts := multipart.NewWriter(&b)
	fmt.Fprintf(&b, "From: News <news@bench.test>\r\nTo: %s <%s>\r\nSubject: %s\r\nDate: %s\r\nMessage-ID: <%s@bench.test>\r\nMIME-Version: 1.0\r\n"+
		"List-Unsubscribe: <https://news.bench.test/u/%s>\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"+
		"Content-Type: multipart/alternative; boundary=%s\r\n\r\n", mime.QEncoding.Encode("utf-8", r.First+" "+r.Last), r.Address,
		mime.QEncoding.Encode("utf-8", r.First+", the news"), time.Now().Format(time.RFC1123Z), rand.Text(), rand.Text(), parts.Boundary())
	for _, kind := range []string{"text/plain", "text/html"} {
		w, err := parts.CreatePart(textproto.MIMEHeader{"Content-Type": {kind + "; charset=utf-8"}, "Content-Transfer-Encoding": {"quoted-printable"}})
		if err != nil {
			return nil, err
		}
		quoted := quotedprintable.NewWriter(w)
		if kind == "text/html" {
			err = htmlText.Execute(quoted, r)
		} else {
			err = plainText.Execute(quoted, r)
		}
		if err != nil {
			return nil, err
		}
		if err := quoted.Close(); err != nil {
			return nil, err
		}
	}
	if err := parts.Close(); err != nil || sign == nil {
		return b.Bytes(), err
	}
	var signed bytes.Buffer
	err := dkim.Sign(&signed, &b, sign)
	return signed.Bytes(), err
}

// send sends a letter in a connection that is kept.
func send(c *smtp.Client, to string, message []byte) error {
	if err := c.Mail("news@bench.test"); err != nil {
		return err
	}
	if err := c.Rcpt(to); err != nil {
		return err
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	if _, err := w.Write(message); err != nil {
		return err
	}
	return w.Close()
}

func main() {
	relay := flag.String("relay", "127.0.0.1:2525", "host:port")
	letters := flag.Int("letters", 20_000, "how many")
	signing := flag.Bool("sign", false, "with RSA-2048")
	flag.Parse()
	var sign *dkim.SignOptions
	if *signing {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			log.Fatal(err)
		}
		sign = &dkim.SignOptions{Domain: "bench.test", Selector: "bench", Signer: key, Hash: crypto.SHA256,
			HeaderCanonicalization: dkim.CanonicalizationRelaxed, BodyCanonicalization: dkim.CanonicalizationRelaxed}
	}
	began := time.Now()
	waiting := make(chan int)
	var connections sync.WaitGroup
	for range 16 {
		connections.Go(func() {
			c, err := smtp.Dial(*relay)
			if err != nil {
				log.Fatal(err)
			}
			for i := range waiting {
				local := fmt.Sprintf("recipient%07d", i)
				r := recipient{local + "@domain000.test", "Jörg", "Lee " + local, "Zürich & Köln", "a/" + local, len(local)}
				message, err := letter(&r, sign)
				if err == nil {
					err = send(c, r.Address, message)
				}
				if err != nil {
					log.Fatal(err)
				}
			}
			if err := c.Quit(); err != nil {
				log.Fatal(err)
			}
		})
	}
	for i := range *letters {
		waiting <- i
	}
	close(waiting)
	connections.Wait()
	fmt.Printf("%.0f\n", float64(*letters)/time.Since(began).Seconds())
}
