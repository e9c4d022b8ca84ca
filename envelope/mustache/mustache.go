// Package mustache is the template language of letters: Mustache
// (mustache.github.io) with variables, sections, inverted sections, comments
// and set delimiters, without partials and lambdas.
//
// It differs from what is usual in two points, as nobody wants a letter with a
// hole in it:
//
//   - A variable that is missing or null is an error, a [MissingError]. In a
//     section it is false, as ever.
//   - {{first|friend}} says what stands there when the variable is missing,
//     null or empty.
//
// False for a section are what is missing, null, false, 0, the empty string
// and the empty list.
//
// The way through it: [Parse] makes nodes of a template once; [Data] reads the
// JSON of one recipient into memory that is used again; [Context.Execute] walks
// the nodes and tells a [Sink] what to write. How a value is escaped is the
// sink's business.
package mustache

import "fmt"

// Kind is what a node is.
type Kind uint8

// The kinds of nodes.
const (
	Literal  Kind = iota // text as it stands
	Variable             // {{x}}, {{{x}}}, {{&x}}
	Section              // {{#x}} … {{/x}}
	Inverted             // {{^x}} … {{/x}}
)

// A Node is a piece of a template. It does not change and may be shared.
type Node struct {
	Kind    Kind
	Offset  int      // of its first octet in the template
	Text    string   // of a literal
	Index   int      // of a literal: how many come before it; of a variable likewise
	Name    string   // as written, "." for the value at the top
	Path    []string // the name at its dots; empty for "."
	Raw     bool     // {{{x}}} or {{&x}}
	Default []byte   // what stands after |
	HasElse bool     // there is a |
	Nodes   []Node   // of a section
}

// A SyntaxError is a template that does not parse.
type SyntaxError struct {
	Offset int // of the tag, in octets
	Reason string
}

func (e *SyntaxError) Error() string { return fmt.Sprintf("octet %d: %s", e.Offset, e.Reason) }

// A MissingError is a value that a template asks for and the data lack.
type MissingError struct {
	Name   string
	Reason string // "" where it is missing; else why it cannot be written
}

func (e *MissingError) Error() string {
	if e.Reason != "" {
		return fmt.Sprintf("{{%s}} %s", e.Name, e.Reason)
	}
	return fmt.Sprintf("{{%s}} is missing and has no default", e.Name)
}

// A Sink takes what a template makes, piece by piece.
type Sink interface {
	Literal(n *Node) error
	// Value takes the value of a variable. It must not keep text.
	Value(n *Node, text []byte) error
}
