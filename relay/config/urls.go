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

// A urlReader reads the URL of one relay.
type urlReader struct {
	*loader
	rawURL
	kind string // the scheme in lower case
	d    *draft
}

// readURL reads the URL of one relay. It returns nil where the text is too far
// from a URL to say more about it.
func (l *loader) readURL(s string, at place, label string) *draft {
	u, ok := splitURL(s)
	r := urlReader{l, u, strings.ToLower(u.scheme), &draft{form: formURL, at: at, label: label, own: map[string]setting{}}}
	if !ok {
		r.problem("not a URL: want smtp://host:port (a blank in a password is written %%20)")
		return nil
	}
	switch r.kind {
	case relay.KindSMTP, relay.KindSMTPS, relay.KindLMTP, relay.KindDummy:
	default:
		shown := ""
		if scheme.MatchString(r.kind) {
			shown = " " + r.kind
		}
		r.problem("unknown scheme%s: want smtp, smtps, lmtp or dummy", shown)
		return nil
	}
	if r.misplaced && (r.fragment || r.hasPath() && r.kind != relay.KindDummy || strangeQuery(r.query)) {
		r.problem("the @ comes too late: in a password / ? # are written %%2F %%3F %%23")
		return nil
	}
	r.set("kind", r.kind)
	if r.fragment {
		r.problem("a # has no meaning here: in a value it is written %%23")
	}
	if r.hasLogin {
		user, password, both := strings.Cut(r.login, ":")
		r.set("user", user)
		if both {
			r.set("password", password)
		}
	}
	if r.kind == relay.KindDummy {
		r.file()
	} else {
		r.server()
	}
	for pair := range strings.SplitSeq(r.query, "&") {
		if pair != "" {
			r.pair(pair)
		}
	}
	return r.d
}

func (r *urlReader) problem(format string, args ...any) {
	r.problems.add(r.d.at, r.d.label, fmt.Sprintf(format, args...))
}

func (r *urlReader) wrong(key, reason string) {
	r.problems.add(r.d.at, joinLabel(r.d.label, key), reason)
	r.d.own[key] = setting{key: keyNamed(key), at: r.d.at, broken: true}
}

func (r *urlReader) set(key, escaped string) {
	value, err := url.PathUnescape(escaped)
	_, said := r.d.own[key]
	switch {
	case said:
		r.wrong(key, "said twice")
	case err != nil:
		r.wrong(key, "has a % that starts no escape: a percent sign is written %25")
	case value == "":
		r.wrong(key, "has no value")
	default:
		mask := r.misplaced || key == "host" || key == "port"
		r.d.own[key] = setting{key: keyNamed(key), label: joinLabel(r.d.label, key), value: value, at: r.d.at, mask: mask}
	}
}

func (r *urlReader) hasPath() bool { return r.path != "" && r.path != "/" }

// file reads where a dummy writes to.
func (r *urlReader) file() {
	switch {
	case r.address != "":
		r.problem("a dummy has no host: want dummy:///path/of/file")
	case r.hasPath():
		r.set("path", r.path)
	}
}

// server reads where a server listens.
func (r *urlReader) server() {
	if r.hasPath() {
		r.problem("a relay has no path: settings follow a question mark, smtp://host?tries=3")
	}
	host, port, hasPort, ok := splitAddress(r.address)
	switch {
	case r.address == "":
		r.problem("the host is missing: want %s://host", r.kind)
	case !ok:
		r.problem("want host, host:port or [IPv6 address]:port")
	default:
		r.set("host", host)
		if hasPort {
			r.set("port", port)
		}
	}
}

// pair reads one setting behind the question mark.
func (r *urlReader) pair(pair string) {
	name, value, _ := strings.Cut(pair, "=")
	key := keyNamed(name)
	switch {
	case key == nil:
		r.problems.add(r.d.at, joinLabel(r.d.label, showUnknown(name)), unknownKey(name))
	case key.fromHead && r.kind != relay.KindDummy:
		r.problems.add(r.d.at, joinLabel(r.d.label, name), "stands before the question mark: "+r.kind+"://host:port")
	default:
		r.set(name, value)
	}
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
