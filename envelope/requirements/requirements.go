// Package requirements is what Gmail, Yahoo and Outlook want of those who send
// much, as far as a message, its keys and the DNS show it:
//
//	Gmail    support.google.com/mail/answer/81126
//	Yahoo    senders.yahooinc.com/best-practices
//	Outlook  aka.ms/SenderRequirements (550 5.7.515)
//
// [Check] names each rule that is broken and what to do.
package requirements

import (
	"context"
	"errors"
	"fmt"
	"net/mail"
	"regexp"
	"slices"
	"strings"
	"time"

	"bulkmail/envelope"
	"bulkmail/envelope/dkim"
	"bulkmail/envelope/letter"
)

// A Setup is what a message is sent with.
type Setup struct {
	Sender         string    // the envelope's; "": not known
	Keys           dkim.Keys // that sign
	UnsubscribeURL string    // to which letters get a token; "": none
	Transactional  bool      // no bulk mail: nobody unsubscribes from it
	Now            time.Time

	// LookupTXT asks the DNS; nil: what is published is not checked. A name that
	// is not there is no error and no text.
	LookupTXT func(ctx context.Context, name string) ([]string, error)
}

// A Finding is a rule that is broken.
type Finding struct {
	Rule  string // a short name
	Who   string // wants it
	Found string // what is wrong
	Do    string // what to do
}

func (f Finding) String() string {
	return fmt.Sprintf("%s (%s): %s: %s", f.Rule, f.Who, f.Found, f.Do)
}

const everybody = "Gmail, Yahoo, Outlook"

// A checker holds what is known of one message.
type checker struct {
	Setup
	template *letter.Template
	header   mail.Header
	raw      string // lower case
	from     string // domain
	findings []Finding
}

// Check names what is broken. The error is a message that cannot be read, or a
// DNS that does not answer.
func Check(ctx context.Context, raw string, s Setup) ([]Finding, error) {
	t, err := letter.Compile(raw, letter.Options{Sender: s.Sender})
	if err != nil {
		return nil, err
	}
	c := checker{Setup: s, template: t, raw: strings.ToLower(raw), from: t.Domain()}
	if m, err := mail.ReadMessage(strings.NewReader(raw)); err == nil {
		c.header = m.Header
	}
	c.format()
	c.sender()
	c.unsubscribe()
	c.signing()
	if s.LookupTXT != nil {
		err = c.published(ctx)
	}
	return c.findings, err
}

func (c *checker) find(rule, who, found, do string) {
	c.findings = append(c.findings, Finding{rule, who, found, do})
}

// format checks that the message is one (RFC 5322).
func (c *checker) format() {
	c.problems()
	if !c.template.Has("subject") {
		c.find("subject", "Gmail, Yahoo", "there is no Subject", "add one that says what the message is about")
	}
	if !c.template.Has("to") {
		c.find("to", "Gmail, Yahoo", "there is no To", "add To: {{to}} to a letter, To: undisclosed-recipients:; to a message to many")
	}
	if c.template.HasBcc() {
		c.find("bcc", everybody, "Bcc would be seen by all, and is taken out", "remove it from the message")
	}
	if answers(c.header.Get("Subject")) && !c.template.Has("in-reply-to") && !c.template.Has("references") {
		c.find("honest-subject", "Gmail, Outlook", "Subject begins as an answer, and the message is none", "take Re: or Fwd: off")
	}
	c.date()
	if id := c.header.Get("Message-Id"); id != "" && !strings.Contains(id, "{{") && !messageID.MatchString(id) {
		c.find("message-id", "Gmail", "Message-ID is not <something@domain>", "leave it out, then a right one is added")
	}
}

// problems names what the reader of the template found.
func (c *checker) problems() {
	for _, p := range c.template.Problems() {
		rule := "one-of-each-field"
		switch {
		case strings.Contains(p.Reason, "encoded word"):
			rule = "encoded-words"
		case strings.Contains(p.Reason, "no From"):
			rule = "from"
		}
		found, do, _ := strings.Cut(p.String(), ": ")
		if p.Line > 0 {
			line := found
			found, do, _ = strings.Cut(do, ": ")
			found = line + ": " + found
		}
		c.find(rule, everybody, found, do)
	}
}

// answers tells whether a subject is that of an answer.
func answers(subject string) bool {
	subject = strings.ToLower(strings.TrimSpace(subject))
	return strings.HasPrefix(subject, "re:") || strings.HasPrefix(subject, "fwd:") || strings.HasPrefix(subject, "fw:")
}

// date checks Date where the message has one of its own.
func (c *checker) date() {
	if date := c.header.Get("Date"); date != "" && !strings.Contains(date, "{{") {
		switch at, err := mail.ParseDate(date); {
		case err != nil:
			c.find("date", "Gmail, Yahoo", "Date is no date", "leave it out, then the right one is added")
		case at.After(c.Now.Add(24*time.Hour)) || at.Before(c.Now.Add(-7*24*time.Hour)):
			c.find("date", "Gmail, Yahoo", "Date is "+date+", which is not now", "leave it out, then the right one is added")
		}
	}
}

// messageID is the form of a Message-ID (RFC 5322, 3.6.4), its parts not looked at.
var messageID = regexp.MustCompile(`^<[^@ \t]+@[^@ \t]+>$`)

// freemail are domains in whose name nobody else may send (their DMARC policy is
// to refuse).
var freemail = []string{
	"gmail.com", "googlemail.com", "yahoo.com", "yahoo.co.uk", "yahoo.de", "yahoo.fr", "aol.com", "ymail.com",
	"outlook.com", "hotmail.com", "live.com", "msn.com", "icloud.com", "me.com", "gmx.de", "gmx.net", "web.de", "mail.ru",
}

// sender checks whose message it is.
func (c *checker) sender() {
	from := c.header.Get("From")
	if from == "" {
		return
	}
	if strings.Contains(from, "{{") && c.from == "" {
		return
	}
	list, err := (&mail.AddressParser{}).ParseList(from)
	switch {
	case err != nil && !strings.Contains(from, "{{"):
		c.find("from", everybody, "From is no address", "write From: News <news@example.com>")
		return
	case len(list) > 1:
		c.find("from", everybody, "From has several addresses", "leave one, and put the others into Reply-To")
	}
	for _, domain := range freemail {
		if strings.EqualFold(c.from, domain) {
			c.find("own-domain", everybody, "From is at "+domain+", which lets nobody else send", "send from a domain of your own, and put that address into Reply-To")
		}
	}
	if len(list) == 1 && !c.template.Has("reply-to") {
		local, _, _ := strings.Cut(strings.ToLower(list[0].Address), "@")
		switch strings.NewReplacer("-", "", "_", "", ".", "").Replace(local) {
		case "noreply", "donotreply":
			c.find("reachable", "Outlook", "From is "+list[0].Address+", which nobody reads", "use an address that takes answers, or add Reply-To with one")
		}
	}
}

// unsubscribe checks RFC 8058.
func (c *checker) unsubscribe() {
	if c.Transactional {
		return
	}
	const oneClick = "one-click-unsubscribe"
	ours := c.UnsubscribeURL != ""
	header := c.header.Get("List-Unsubscribe")
	post := strings.ReplaceAll(strings.TrimSpace(c.header.Get("List-Unsubscribe-Post")), " ", "")
	https := strings.Contains(strings.ToLower(header), "<https://") || ours && strings.Contains(header, "{{unsubscribe_url}}")
	switch {
	case header == "" && !ours:
		c.find(oneClick, "Gmail, Yahoo", "there is no List-Unsubscribe", "set BULKMAIL_UNSUBSCRIBE_URL and send letters, then each gets its own")
	case header != "" && !https:
		c.find(oneClick, "Gmail, Yahoo", "List-Unsubscribe has no https URI", "write List-Unsubscribe: <{{unsubscribe_url}}>, or leave it out")
	case header != "" && post == "" && !(ours && strings.Contains(header, "unsubscribe_url")):
		c.find(oneClick, "Gmail, Yahoo", "there is no List-Unsubscribe-Post", "add List-Unsubscribe-Post: List-Unsubscribe=One-Click")
	case post != "" && !strings.EqualFold(post, "List-Unsubscribe=One-Click"):
		c.find(oneClick, "Gmail, Yahoo", "List-Unsubscribe-Post is not List-Unsubscribe=One-Click", "write exactly that")
	}
	if !c.saysUnsubscribe() {
		c.find("unsubscribe-link", everybody, "there is no link to unsubscribe in the text", "write {{unsubscribe_url}} into plain text and HTML")
	}
}

// saysUnsubscribe looks for the link in the texts.
func (c *checker) saysUnsubscribe() bool {
	if slices.Contains(c.template.Variables(), "unsubscribe_url") {
		return true
	}
	_, body, _ := strings.Cut(strings.ReplaceAll(c.raw, "\r\n", "\n"), "\n\n")
	for _, word := range []string{"unsubscribe", "opt out", "opt-out", "abmelden", "abbestellen", "désabonner", "desuscribir", "cancelar"} {
		if strings.Contains(body, word) {
			return true
		}
	}
	return false
}

// signing checks the keys.
func (c *checker) signing() {
	if c.from == "" {
		return
	}
	keys := c.Keys.For(c.from)
	if len(keys) == 0 {
		c.find("dkim", everybody, "no key signs for "+c.from, "make one with bulkmail dkim keygen --domain "+c.from+", publish its record, and name it in BULKMAIL_DKIM_FILE")
		return
	}
	rsa := false
	for _, k := range keys {
		rsa = rsa || k.Algorithm() == "rsa-sha256"
		if k.Algorithm() == "rsa-sha256" && k.Bits() < 2048 {
			c.find("dkim-key-size", "Gmail", fmt.Sprintf("the key %s has %d bits", k.Name(), k.Bits()), "make one of 2,048 with bulkmail dkim keygen")
		}
	}
	if !rsa {
		c.find("dkim-algorithm", "Gmail, Outlook", "all keys for "+c.from+" are Ed25519, which they do not believe", "add one of type rsa")
	}
}

// published checks what the DNS says.
func (c *checker) published(ctx context.Context) error {
	if c.from == "" {
		return nil
	}
	for _, k := range c.Keys.For(c.from) {
		texts, err := c.LookupTXT(ctx, k.Name())
		if err != nil {
			return err
		}
		if err := k.Compare(texts); err != nil {
			c.find("dkim-record", everybody, k.Name()+": "+err.Error(), "publish "+k.ZoneRecord())
		}
	}
	if err := c.dmarc(ctx); err != nil {
		return err
	}
	return c.spf(ctx)
}

func (c *checker) dmarc(ctx context.Context) error {
	names := []string{c.from}
	if org := dkim.Organization(c.from); !strings.EqualFold(org, c.from) {
		names = append(names, org)
	}
	for _, name := range names {
		texts, err := c.LookupTXT(ctx, "_dmarc."+name)
		if err != nil {
			return err
		}
		var found []string
		for _, text := range texts {
			if strings.HasPrefix(text, "v=DMARC1") {
				found = append(found, text)
			}
		}
		switch {
		case len(found) == 0:
			continue
		case len(found) > 1:
			c.find("dmarc", everybody, "_dmarc."+name+" has several records, which counts as none", "leave one")
		case !strings.Contains(strings.ReplaceAll(found[0], " ", ""), ";p="):
			c.find("dmarc", everybody, "_dmarc."+name+" has no policy", "add p=none, or better p=quarantine")
		}
		return nil
	}
	c.find("dmarc", everybody, "there is no DMARC record", `publish _dmarc.`+c.from+`. IN TXT "v=DMARC1; p=none"`)
	return nil
}

func (c *checker) spf(ctx context.Context) error {
	domain := c.from
	if a, err := envelope.ParseAddress(c.Sender); err == nil {
		domain = a.Domain
	}
	texts, err := c.LookupTXT(ctx, domain)
	if err != nil {
		return err
	}
	found := 0
	for _, text := range texts {
		if text == "v=spf1" || strings.HasPrefix(text, "v=spf1 ") {
			found++
			if strings.HasSuffix(text, "+all") {
				c.find("spf", everybody, "the SPF record of "+domain+" lets everybody send", "end it with ~all or -all")
			}
		}
	}
	switch {
	case found == 0:
		c.find("spf", everybody, "there is no SPF record at "+domain+", the domain of the envelope's sender", `publish `+domain+`. IN TXT "v=spf1 … -all" with your relays in it`)
	case found > 1:
		c.find("spf", everybody, domain+" has several SPF records, which counts as an error", "make them one")
	}
	return nil
}

// ErrZone is a zone file that cannot be read.
var ErrZone = errors.New("not a zone file")
