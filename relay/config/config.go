// Package config reads the relays of a worker from a list of URLs, from a YAML
// file, or from a Mail::Bulkmail server file as it stands.
//
// The way of a setting:
//
//  1. readURLs, readYAML and readServerFile turn their form into drafts: one
//     per relay, each a set of texts with the place where each was written.
//  2. [Keys] is the table of all that can be said about a relay. Its setters
//     turn the texts of a draft into a [relay.Config], whatever the form.
//  3. finish fills in the defaults that depend on other settings and checks
//     what settings mean together.
//
// Nothing stops at the first problem: [Load] reports all of them, up to a hundred.
package config

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"

	"bulkmail/envelope/conffile"
	"bulkmail/relay"
)

// Options are what Load needs of the world around it. The zero Options ask the
// operating system.
type Options struct {
	// Hostname is the name of this host for EHLO, where no domain is
	// configured. An error, or a name without a dot, makes it an address
	// literal (RFC 5321, 4.1.4). Nil: relay.FQDN.
	Hostname func() (string, error)
	// Addrs are this host's addresses for that literal. Nil:
	// net.InterfaceAddrs.
	Addrs func() ([]net.Addr, error)
	// ReadFile reads the relay files and what they name. Nil: the disk, at
	// most 1 MiB a file.
	ReadFile func(name string) ([]byte, error)
	// UID is the user whose lines count in a server file ("87: Port = 26").
	// Nil: os.Geteuid.
	UID func() int
	// URLsFrom is what the URLs are called in messages. Empty:
	// BULKMAIL_RELAYS.
	URLsFrom string
}

func (o Options) withDefaults() Options {
	if o.Hostname == nil {
		o.Hostname = relay.FQDN
	}
	if o.Addrs == nil {
		o.Addrs = net.InterfaceAddrs
	}
	if o.ReadFile == nil {
		o.ReadFile = conffile.Read
	}
	if o.UID == nil {
		o.UID = os.Geteuid
	}
	if o.URLsFrom == "" {
		o.URLsFrom = "BULKMAIL_RELAYS"
	}
	return o
}

// Load reads the relays of urls, a blank-separated list, and those of file,
// which is YAML or a Mail::Bulkmail server file. Either may be empty; with
// both, the URLs come first. The error is [Problems], all there are.
func Load(urls, file string, opt Options) ([]relay.Config, error) {
	l := &loader{opt: opt.withDefaults()}
	list := strings.Fields(urls)
	if len(list) == 0 && file == "" {
		return nil, Problems{{
			Key:    l.opt.URLsFrom,
			Reason: "no relay is configured: set it to the URL of one (smtp://host:25), or BULKMAIL_RELAYS_FILE to a file of relays",
		}}
	}
	drafts := l.readURLs(list)
	if file != "" {
		drafts = append(drafts, l.readRelayFile(file)...)
	}
	if len(drafts) > maxRelays {
		l.problems.add(place{source: cmp.Or(file, l.opt.URLsFrom)}, "", fmt.Sprintf("%d relays, which is more than %d: take some out", len(drafts), maxRelays))
	}
	if l.problems.full() || len(drafts) > maxRelays {
		return nil, l.problems.join()
	}
	relays := l.finish(drafts)
	if err := l.problems.join(); err != nil {
		return nil, err
	}
	return relays, nil
}

// maxRelays is how many relays there may be: more than anybody has, and so many that
// what compares each with all others takes no time.
const maxRelays = 1_000

// A loader gathers the problems of one Load.
type loader struct {
	opt      Options
	problems problemList
}

// A setting is one text that somebody wrote about a relay.
type setting struct {
	key   *Key
	label string // as it is called where it was written: "relays[1].port", "Port"
	value string
	at    place
	mask  bool // never show the value: it may be a piece of a password

	// Reported already: nothing is to be set, and nothing to be said about
	// what it means together with other settings.
	broken bool
}

// A draft is one relay before its settings are understood.
type draft struct {
	form     form
	label    string // "relays[1]"; empty where the place says it all
	at       place
	own      map[string]setting
	defaults map[string]setting // shared by all drafts of a file
}

// lookup returns what is said under a key, and whether the relay itself says
// so and not the defaults of its file.
func (d *draft) lookup(key string) (s setting, own, ok bool) {
	if s, ok := d.own[key]; ok {
		return s, true, true
	}
	s, ok = d.defaults[key]
	return s, false, ok
}

// A form is one of the ways in which relays are written down.
type form uint8

const (
	formURL form = iota
	formYAML
	formServerFile
)

func (l *loader) readRelayFile(name string) []*draft {
	at := place{source: name}
	data, ok := l.read(at, "", name)
	if !ok {
		return nil
	}
	data = bytes.TrimPrefix(data, []byte(byteOrderMark))
	switch {
	case isServerFile(data):
		return l.readServerFile(name, data)
	case len(bytes.TrimSpace(data)) == 0:
		l.problems.add(at, "", "the file is empty: write relays: and a list of them")
		return nil
	default:
		return l.readYAML(name, data)
	}
}

// read reads a file that is named at a place under a key.
func (l *loader) read(at place, label, name string) ([]byte, bool) {
	data, err := l.opt.ReadFile(name)
	if err != nil {
		reason := err
		if pe, ok := errors.AsType[*fs.PathError](err); ok {
			reason = pe.Err
		}
		if at.source == name && label == "" {
			l.problems.add(at, label, "cannot be read: "+reason.Error())
		} else {
			l.problems.add(at, label, name+" cannot be read: "+reason.Error())
		}
		return nil, false
	}
	return data, true
}

const byteOrderMark = "\uFEFF" // as some editors on Windows write it
