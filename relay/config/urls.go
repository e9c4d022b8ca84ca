package config

import (
	"fmt"
	"net/url"
	"regexp"
	"strings"

	"bulkmail/relay"
)

// Messages about a URL quote no part of it but the names of known schemes and
// keys: in a URL that is written wrong, any part may be a piece of the
// password. For the same reason net/url does not parse it, as its errors hold
// the whole.

var scheme = regexp.MustCompile(`^[a-z][a-z0-9]{0,9}$`)

func (l *loader) readURLs(list []string) []*draft {
	var drafts []*draft
	for i, u := range list {
		at := place{source: l.opt.URLsFrom, url: i + 1}
		if d := l.readURL(u, at, ""); d != nil {
			drafts = append(drafts, d)
		}
	}
	return drafts
}

// A rawURL is a relay's URL taken apart, nothing unescaped.
type rawURL struct {
	scheme    string
	login     string // before the last @ of the authority
	hasLogin  bool
	address   string // host and port
	path      string
	query     string
	fragment  bool
	misplaced bool // an @ behind the authority, which has none
}

func splitURL(s string) (u rawURL, ok bool) {
	var rest string
	if u.scheme, rest, ok = strings.Cut(s, "://"); !ok {
		return u, false
	}
	authority := rest
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		authority, rest = rest[:i], rest[i:]
	} else {
		rest = ""
	}
	if i := strings.LastIndexByte(authority, '@'); i >= 0 {
		u.login, u.hasLogin, authority = authority[:i], true, authority[i+1:]
	}
	u.address = authority
	u.misplaced = !u.hasLogin && strings.Contains(rest, "@")
	rest, _, u.fragment = strings.Cut(rest, "#")
	u.path, u.query, _ = strings.Cut(rest, "?")
	return u, true
}

// readURL reads the URL of one relay. It returns nil where the text is too far
// from a URL to say more about it.
func (l *loader) readURL(s string, at place, label string) *draft {
	problem := func(format string, args ...any) { l.problems.add(at, label, fmt.Sprintf(format, args...)) }
	u, ok := splitURL(s)
	if !ok {
		problem("not a URL: want smtp://host:port (a blank in a password is written %%20)")
		return nil
	}
	kind := strings.ToLower(u.scheme)
	switch kind {
	case relay.KindSMTP, relay.KindSMTPS, relay.KindLMTP, relay.KindDummy:
	default:
		shown := ""
		if scheme.MatchString(kind) {
			shown = " " + kind
		}
		problem("unknown scheme%s: want smtp, smtps, lmtp or dummy", shown)
		return nil
	}
	dummy := kind == relay.KindDummy
	if u.misplaced && (u.fragment || (!dummy && u.path != "" && u.path != "/") || strangeQuery(u.query)) {
		problem("the @ comes too late: in a password / ? # are written %%2F %%3F %%23")
		return nil
	}

	d := &draft{form: formURL, at: at, label: label, own: map[string]setting{}}
	wrong := func(key, reason string) {
		l.problems.add(at, joinLabel(label, key), reason)
		d.own[key] = setting{key: keyNamed(key), at: at, broken: true}
	}
	set := func(key, escaped string) {
		value, err := url.PathUnescape(escaped)
		_, said := d.own[key]
		switch {
		case said:
			wrong(key, "said twice")
		case err != nil:
			wrong(key, "has a % that starts no escape: a percent sign is written %25")
		case value == "":
			wrong(key, "has no value")
		default:
			mask := u.misplaced || key == "host" || key == "port"
			d.own[key] = setting{key: keyNamed(key), label: joinLabel(label, key), value: value, at: at, mask: mask}
		}
	}
	set("kind", kind)
	if u.fragment {
		problem("a # has no meaning here: in a value it is written %%23")
	}
	if u.hasLogin {
		user, password, both := strings.Cut(u.login, ":")
		set("user", user)
		if both {
			set("password", password)
		}
	}
	switch {
	case dummy && u.address != "":
		problem("a dummy has no host: want dummy:///path/of/file")
	case dummy:
		if u.path != "" && u.path != "/" {
			set("path", u.path)
		}
	case u.path != "" && u.path != "/":
		problem("a relay has no path: settings follow a question mark, smtp://host?tries=3")
	}
	if !dummy {
		host, port, hasPort, ok := splitAddress(u.address)
		switch {
		case u.address == "":
			problem("the host is missing: want %s://host", kind)
		case !ok:
			problem("want host, host:port or [IPv6 address]:port")
		default:
			set("host", host)
			if hasPort {
				set("port", port)
			}
		}
	}
	for pair := range strings.SplitSeq(u.query, "&") {
		if pair == "" {
			continue
		}
		name, value, _ := strings.Cut(pair, "=")
		key := keyNamed(name)
		switch {
		case key == nil:
			l.problems.add(at, joinLabel(label, showUnknown(name)), unknownKey(name))
		case key.fromHead && !dummy:
			l.problems.add(at, joinLabel(label, name), "stands before the question mark: "+kind+"://host:port")
		default:
			set(name, value)
		}
	}
	return d
}

// splitAddress takes host and port apart. ok is false where an IPv6 address
// lacks its brackets.
func splitAddress(s string) (host, port string, hasPort, ok bool) {
	if strings.HasPrefix(s, "[") {
		host, rest, closed := strings.Cut(s, "]")
		port, hasPort = strings.CutPrefix(rest, ":")
		return host + "]", port, hasPort, closed && (hasPort || rest == "")
	}
	host, port, hasPort = strings.Cut(s, ":")
	return host, port, hasPort, !strings.Contains(port, ":")
}

// strangeQuery tells whether an unescaped @ follows something that is no key
// of ours: then the question mark was meant to be part of a password.
func strangeQuery(query string) bool {
	for pair := range strings.SplitSeq(query, "&") {
		name, _, _ := strings.Cut(pair, "=")
		if pair != "" && keyNamed(name) == nil {
			return true
		}
	}
	return false
}

var plainKey = regexp.MustCompile(`^[A-Za-z_-]{1,40}$`)

// showUnknown is how the name of an unknown key is shown: not at all where it
// is no word.
func showUnknown(name string) string {
	if plainKey.MatchString(name) {
		return name
	}
	return ""
}

func joinLabel(label, key string) string {
	if label == "" || key == "" {
		return label + key
	}
	return label + "." + key
}
