package mustache

import (
	"strings"
)

// Parse reads a template. The error is a *[SyntaxError].
func Parse(template string) ([]Node, error) {
	p := parser{src: template, open: "{{", close: "}}"}
	nodes, err := p.nodes(nil)
	return nodes, err
}

// maxDepth bounds how deep sections nest.
const maxDepth = 100

type parser struct {
	src         string
	pos         int
	open, close string // delimiters
	depth       int
	literals    int
	variables   int
}

// A tag is what stands between delimiters.
type tag struct {
	kind       byte // #, ^, /, !, =, &, {, or 0 for a variable
	content    string
	start, end int // in the template, delimiters included
}

func (p *parser) fail(offset int, reason string) error {
	return &SyntaxError{Offset: offset, Reason: reason}
}

// nodes reads up to the end of the section that opened with the tag, or to the
// end of the template.
func (p *parser) nodes(within *tag) (nodes []Node, err error) {
	for {
		start := p.pos
		at := strings.Index(p.src[start:], p.open)
		if at < 0 {
			p.pos = len(p.src)
			if within != nil {
				return nil, p.fail(within.start, "the section "+within.content+" is not closed: write "+p.open+"/"+within.content+p.close)
			}
			return p.literal(nodes, start, len(p.src)), nil
		}
		t, err := p.tag(start + at)
		if err != nil {
			return nil, err
		}
		from, to := t.start, t.end
		if strings.IndexByte("#^/!=", t.kind) >= 0 && t.kind != 0 {
			from, to = p.standalone(from, to)
		}
		nodes = p.literal(nodes, start, max(start, from))
		p.pos = to
		if t.kind == '/' {
			if within == nil {
				return nil, p.fail(t.start, "no section "+t.content+" is open here")
			}
			if t.content != within.content {
				return nil, p.fail(t.start, "closes the section "+t.content+", but "+within.content+" is open")
			}
			return nodes, nil
		}
		if nodes, err = p.apply(nodes, t); err != nil {
			return nil, err
		}
	}
}

func (p *parser) literal(nodes []Node, from, to int) []Node {
	if from >= to {
		return nodes
	}
	n := Node{Kind: Literal, Offset: from, Text: p.src[from:to], Index: p.literals}
	p.literals++
	return append(nodes, n)
}

// tag reads the tag at the offset.
func (p *parser) tag(start int) (tag, error) {
	t := tag{start: start}
	from := start + len(p.open)
	closing := p.close
	if from < len(p.src) {
		switch c := p.src[from]; {
		case c == '{' && p.open == "{{":
			closing = "}}}"
			t.kind = c
			from++
		case c == '=':
			closing = "=" + p.close
			t.kind = c
			from++
		case strings.IndexByte("#^/!&><$*", c) >= 0:
			t.kind = c
			from++
		}
	}
	length := strings.Index(p.src[from:], closing)
	if length < 0 {
		return t, p.fail(start, "the tag is not closed: "+closing+" is missing")
	}
	t.content = strings.TrimSpace(p.src[from : from+length])
	t.end = from + length + len(closing)
	return t, nil
}

// standalone widens a tag that is alone on its line to the whole line, as the
// specification wants it for all but variables.
func (p *parser) standalone(start, end int) (from, to int) {
	from, to = start, end
	for from > 0 && (p.src[from-1] == ' ' || p.src[from-1] == '\t') {
		from--
	}
	if from > 0 && p.src[from-1] != '\n' {
		return start, end
	}
	for to < len(p.src) && (p.src[to] == ' ' || p.src[to] == '\t') {
		to++
	}
	switch rest := p.src[to:]; {
	case rest == "":
		return from, to
	case rest[0] == '\n':
		return from, to + 1
	case strings.HasPrefix(rest, "\r\n"):
		return from, to + 2
	}
	return start, end
}

// apply adds what a tag other than the end of a section means.
func (p *parser) apply(nodes []Node, t tag) ([]Node, error) {
	switch t.kind {
	case '!':
		return nodes, nil
	case '=':
		delimiters := strings.Fields(t.content)
		if len(delimiters) != 2 || strings.Contains(t.content, "=") {
			return nil, p.fail(t.start, "set delimiters as in {{=<% %>=}}")
		}
		p.open, p.close = delimiters[0], delimiters[1]
		return nodes, nil
	case '>', '<', '$', '*':
		return nil, p.fail(t.start, "partials and blocks are not supported: write the text here")
	}
	n := Node{Offset: t.start, Name: t.content}
	if t.kind != '#' && t.kind != '^' {
		n.Kind = Variable
		n.Raw = t.kind != 0
		if before, after, ok := strings.Cut(t.content, "|"); ok {
			n.Name, n.Default, n.HasElse = strings.TrimSpace(before), []byte(strings.TrimSpace(after)), true
		}
		n.Index = p.variables
		p.variables++
	}
	if n.Name == "" {
		return nil, p.fail(t.start, "the tag has no name")
	}
	if n.Name != "." {
		n.Path = strings.Split(n.Name, ".")
	}
	for _, name := range n.Path {
		if name == "" || strings.ContainsAny(name, "\r\n") {
			return nil, p.fail(t.start, "not a name: a name is on one line, with dots between its parts alone")
		}
	}
	if n.Kind == Variable {
		return append(nodes, n), nil
	}
	n.Kind = Section
	if t.kind == '^' {
		n.Kind = Inverted
	}
	if p.depth++; p.depth > maxDepth {
		return nil, p.fail(t.start, "sections are nested too deep")
	}
	var err error
	n.Nodes, err = p.nodes(&t)
	p.depth--
	return append(nodes, n), err
}

// Walk calls f for every node, in the order of the template.
func Walk(nodes []Node, f func(n *Node)) {
	for i := range nodes {
		f(&nodes[i])
		Walk(nodes[i].Nodes, f)
	}
}
