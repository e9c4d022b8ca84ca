package config

import (
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strconv"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"

	"bulkmail/envelope/conffile"
)

// A yamlFile walks the syntax tree of a YAML file. The tree and not a decoder
// into structs, because only the tree knows every line and every text as it
// was written (a password 0123 is no number).
type yamlFile struct {
	*loader
	name    string
	anchors map[string]ast.Node
}

func (l *loader) readYAML(name string, data []byte) []*draft {
	y := &yamlFile{loader: l, name: name, anchors: map[string]ast.Node{}}
	root, ok := y.parse(data)
	if !ok {
		return nil
	}
	top := y.mapping(root, "")
	if top == nil {
		return nil
	}
	var defaults map[string]setting
	var relays ast.Node
	for _, e := range top {
		switch e.key {
		case "defaults":
			defaults = y.defaults(e.value)
		case "relays":
			relays = e.value
		default:
			reason := "unknown key" + DidYouMean(e.key, []string{"defaults", "relays"})
			if keyNamed(e.key) != nil {
				reason = "belongs under defaults: or under one of relays:"
			}
			y.problems.add(e.at, showUnknown(e.key), reason)
		}
	}
	if relays == nil {
		y.problems.add(place{source: name}, "relays", "missing: write relays: and a list of them")
		return nil
	}
	list, ok := y.resolve(relays).(*ast.SequenceNode)
	if !ok || len(list.Values) == 0 {
		y.problems.add(y.at(relays), "relays", "want a list of at least one relay: - host: mx.example.com")
		return nil
	}
	var drafts []*draft
	for i, node := range list.Values {
		if y.problems.full() {
			break
		}
		label := "relays[" + strconv.Itoa(i) + "]"
		if d := y.relay(node, label); d != nil {
			d.defaults = defaults
			drafts = append(drafts, d)
		}
	}
	return drafts
}

// quoted is a piece of the file in an error of the parser.
var quoted = regexp.MustCompile(`"[^"]*"`)

// parse returns the root of the only document.
func (y *yamlFile) parse(data []byte) (root ast.Node, ok bool) {
	at := place{source: y.name}
	file, err := conffile.ParseYAML(data)
	if err != nil {
		reason := "no valid YAML"
		// Error() would quote the lines around, passwords and all.
		if ye, ok := errors.AsType[yaml.Error](err); ok {
			reason += ": " + quoted.ReplaceAllString(ye.GetMessage(), `"…"`)
			if tk := ye.GetToken(); tk != nil && tk.Position != nil {
				at.line = tk.Position.Line
			}
		}
		if beyond, ok := errors.AsType[*conffile.Error](err); ok {
			at.line, reason = beyond.Line, beyond.Reason
		}
		y.problems.add(at, "", reason)
		return nil, false
	}
	for _, doc := range file.Docs {
		switch {
		case doc.Body == nil:
		case root != nil:
			y.problems.add(y.at(doc.Body), "", "a second document: one file holds one list of relays")
			return nil, false
		default:
			root = doc.Body
		}
	}
	if root == nil {
		y.problems.add(at, "", "the file is empty: write relays: and a list of them")
		return nil, false
	}
	for _, n := range ast.Filter(ast.AnchorType, root) {
		if a, ok := n.(*ast.AnchorNode); ok && a.Name != nil {
			y.anchors[a.Name.GetToken().Value] = a.Value
		}
	}
	return root, true
}

func (y *yamlFile) at(n ast.Node) place {
	p := place{source: y.name}
	if tk := n.GetToken(); tk != nil && tk.Position != nil {
		p.line = tk.Position.Line
	}
	return p
}

// resolve sees through anchors, aliases and tags.
func (y *yamlFile) resolve(n ast.Node) ast.Node {
	const deepest = 16 // an alias may lead back to itself
	for range deepest {
		switch v := n.(type) {
		case *ast.AnchorNode:
			n = v.Value
		case *ast.TagNode:
			n = v.Value
		case *ast.AliasNode:
			n = y.anchors[v.Value.GetToken().Value]
		default:
			return n
		}
	}
	return nil
}

// An entry is one key of a mapping and what it leads to.
type entry struct {
	key   string
	at    place
	value ast.Node
}

// mapping lists the entries of a mapping in their order, merged ones (<<) last
// and only where the mapping says nothing itself. It returns nil after a
// problem.
func (y *yamlFile) mapping(n ast.Node, label string) []entry {
	m, ok := y.resolve(n).(*ast.MappingNode)
	if !ok {
		y.problems.add(y.at(n), label, "want keys and values: host: mx.example.com")
		return nil
	}
	entries := []entry{}
	said := map[string]bool{}
	var merged []*ast.MappingNode
	for _, v := range m.Values {
		if v.Key.IsMergeKey() {
			merged = append(merged, y.mergeSources(v.Value)...)
			continue
		}
		e := entry{key: keyText(v.Key), at: y.at(v.Key), value: v.Value}
		if said[e.key] {
			y.problems.add(e.at, joinLabel(label, showUnknown(e.key)), "said twice")
			continue
		}
		said[e.key] = true
		entries = append(entries, e)
	}
	for _, source := range merged {
		for _, v := range source.Values {
			key := keyText(v.Key)
			if !said[key] {
				said[key] = true
				entries = append(entries, entry{key: key, at: y.at(v.Key), value: v.Value})
			}
		}
	}
	return entries
}

func (y *yamlFile) mergeSources(n ast.Node) []*ast.MappingNode {
	nodes := []ast.Node{n}
	if list, ok := y.resolve(n).(*ast.SequenceNode); ok {
		nodes = list.Values
	}
	var sources []*ast.MappingNode
	for _, n := range nodes {
		if m, ok := y.resolve(n).(*ast.MappingNode); ok {
			sources = append(sources, m)
		} else {
			y.problems.add(y.at(n), "", "<< wants an alias of a mapping")
		}
	}
	return sources
}

func keyText(k ast.MapKeyNode) string {
	switch k := k.(type) {
	case *ast.StringNode:
		return k.Value
	default:
		return k.GetToken().Value
	}
}

// scalar is the text of a single value. For a null, value is empty.
func (y *yamlFile) scalar(n ast.Node) (value string, ok bool) {
	switch v := y.resolve(n).(type) {
	case *ast.StringNode:
		return v.Value, true
	case *ast.LiteralNode:
		return v.Value.Value, true
	case *ast.NullNode:
		return "", true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return v.GetToken().Value, true
	default:
		return "", false
	}
}

func (y *yamlFile) defaults(n ast.Node) map[string]setting {
	if v, ok := y.scalar(n); ok && v == "" {
		return nil
	}
	settings := y.settings(n, "defaults")
	for name, s := range settings {
		if s.key.single {
			y.problems.add(s.at, s.label, "belongs to one relay, not to all of them")
			delete(settings, name)
		}
	}
	return settings
}

// relay reads an element of relays:, which is a mapping, or a URL as in the
// environment.
func (y *yamlFile) relay(n ast.Node, label string) *draft {
	if u, ok := y.scalar(n); ok && u != "" {
		return y.readURL(u, y.at(n), label)
	}
	settings := y.settings(n, label)
	if settings == nil {
		return nil
	}
	d := &draft{form: formYAML, label: label, at: y.at(n), own: settings}
	// The token of a mapping is that of its first colon; the first key is
	// what people look for, also where that key is unknown.
	if m, ok := y.resolve(n).(*ast.MappingNode); ok && len(m.Values) > 0 {
		d.at = y.at(m.Values[0].Key)
	}
	return d
}

// settings reads a mapping of keys of the table. It returns nil after a
// problem that leaves nothing to check.
func (y *yamlFile) settings(n ast.Node, label string) map[string]setting {
	entries := y.mapping(n, label)
	if entries == nil {
		return nil
	}
	settings := map[string]setting{}
	for _, e := range entries {
		if y.problems.full() {
			break
		}
		key := keyNamed(e.key)
		if key == nil {
			y.problems.add(e.at, joinLabel(label, showUnknown(e.key)), unknownKey(e.key))
			continue
		}
		s := setting{key: key, label: joinLabel(label, e.key), at: e.at}
		var ok bool
		s.value, ok = y.scalar(e.value)
		switch {
		case !ok:
			y.problems.add(e.at, s.label, fmt.Sprintf("want one value (%s)", key.value))
			s.broken = true
		case s.value == "":
			y.problems.add(e.at, s.label, "has no value")
			s.broken = true
		case key.fromDir:
			s.value = besideFile(y.name, s.value)
		}
		settings[e.key] = s
	}
	return settings
}

// besideFile makes a path that a file names relative to that file: a worker
// may be started anywhere.
func besideFile(file, path string) string {
	if filepath.IsAbs(path) || path == "stderr" || path == "off" {
		return path
	}
	return filepath.Join(filepath.Dir(file), path)
}
