package runner

import (
	"net/url"
	"strings"

	"bulkmail/envelope"
	"bulkmail/envelope/conffile"
	"bulkmail/envelope/dkim"
	"bulkmail/envelope/keys"
	"bulkmail/envelope/returnpath"
	"bulkmail/worker"
)

// readLetters reads the files that letters are made with, and finds what is wrong
// with them and with the unsubscribe addresses.
func (o Options) readLetters(p *Problems) worker.LetterOptions {
	letters := worker.LetterOptions{UnsubscribeURL: o.UnsubscribeURL, UnsubscribeMailto: o.UnsubscribeMailto}
	if o.KeysFile != "" {
		text, err := conffile.Read(o.KeysFile)
		if err != nil {
			p.add("KeysFile", "%v", err)
		} else if letters.Keys, err = keys.Parse(string(text)); err != nil {
			p.add("KeysFile", "%s: %v", o.KeysFile, err)
		}
	}
	if o.DKIMFile != "" {
		var err error
		if letters.DKIM, err = dkim.Load(o.DKIMFile); err != nil {
			p.add("DKIMFile", "%v", err)
		}
	}
	if u, err := url.Parse(o.UnsubscribeURL); o.UnsubscribeURL != "" && (err != nil || u.Scheme != "https" || u.Host == "" || strings.ContainsAny(o.UnsubscribeURL, "?#<> \t")) {
		p.add("UnsubscribeURL", "%q: use an https URL without ? and #, for example https://news.example.com/u/", o.UnsubscribeURL)
	}
	if o.ReturnPath != "" {
		var err error
		if letters.ReturnPath, err = returnpath.ParsePath(o.ReturnPath); err != nil {
			p.add("ReturnPath", "%v", err)
		}
	}
	if _, err := envelope.ParseAddress(o.UnsubscribeMailto); o.UnsubscribeMailto != "" && err != nil {
		p.add("UnsubscribeMailto", "%v", err)
	}
	return letters
}
