package conffile

import (
	"errors"
	"fmt"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

const (
	maxDepth      = 32
	maxSigns      = 60_000 // line ends, colons, commas, brackets and the like
	maxKeys       = 1_000  // of one mapping
	maxReferences = 5_000  // anchors, aliases and tags
)

// An Error is YAML that is not parsed.
type Error struct {
	Line   int // from 1; 0: the file as a whole
	Reason string
}

func (e *Error) Error() string {
	if e.Line == 0 {
		return e.Reason
	}
	return fmt.Sprintf("line %d: %s", e.Line, e.Reason)
}

// ParseYAML parses a file. The error is an [*Error], or one of the parser's, which
// quotes the text.
func ParseYAML(text []byte) (file *ast.File, err error) {
	if len(text) > MaxSize {
		return nil, &Error{Reason: ErrTooLarge.Error()}
	}
	if tooManySigns(text) {
		return nil, &Error{Reason: fmt.Sprintf("more than %d lines, keys and values: name another file, or make it smaller", maxSigns)}
	}
	// The parser has panicked on garbage before.
	defer func() {
		if r := recover(); r != nil {
			file, err = nil, &Error{Reason: "is no YAML"}
		}
	}()
	tokens := lexer.Tokenize(string(text))
	if err := within(tokens); err != nil {
		return nil, err
	}
	return parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
}

// Unmarshal decodes a file into v, and takes no key that v has not. The error is one
// line, an [*Error].
func Unmarshal(text []byte, v any) error {
	file, err := ParseYAML(text)
	if err != nil {
		return oneLine(err)
	}
	for _, doc := range file.Docs {
		if doc.Body == nil {
			continue
		}
		return oneLine(yaml.NodeToValue(doc.Body, v, yaml.Strict()))
	}
	return nil
}

// oneLine is err without the lines that the parser quotes.
func oneLine(err error) error {
	e, ok := errors.AsType[yaml.Error](err)
	if !ok {
		return err
	}
	where := &Error{Reason: e.GetMessage()}
	if tk := e.GetToken(); tk != nil && tk.Position != nil {
		where.Line = tk.Position.Line
	}
	return where
}

// tooManySigns looks at the text itself, for tokens are large: 1 MiB of them would
// take a gigabyte.
func tooManySigns(text []byte) bool {
	signs := 0
	for _, c := range text {
		switch c {
		case '\n', '\r', ':', ',', '[', ']', '{', '}', '-', '?', '&', '*', '!', '|', '>', '\'', '"', '#', '%', '@', '`':
			signs++
		}
	}
	return signs > maxSigns
}

// A level is a mapping or a sequence that is written in lines. A sequence may stand
// at the column of the mapping that it is in.
type level struct {
	column   int
	sequence bool
	keys     int
}

// A nest is where in a file a token stands.
type nest struct {
	levels []level
	flow   int // brackets that are open
}

// within tells what of tokens is beyond the bounds.
func within(tokens token.Tokens) error {
	var n nest
	references := 0
	lastLine, opens := 0, false // opens: what stands behind - or ? on its line begins a level
	for _, tk := range tokens {
		if tk.Type == token.CommentType {
			continue
		}
		if line := tk.Position.Line; n.flow == 0 && (line != lastLine || opens) {
			n.begins(tk)
		}
		lastLine = tk.Position.Line
		switch tk.Type {
		case token.SequenceStartType, token.MappingStartType:
			n.flow++
		case token.SequenceEndType, token.MappingEndType:
			n.flow = max(0, n.flow-1)
		case token.AnchorType, token.AliasType, token.TagType:
			references++
		}
		opens = tk.Type == token.SequenceEntryType || tk.Type == token.MappingKeyType
		switch {
		case n.flow+len(n.levels) > maxDepth:
			return &Error{tk.Position.Line, fmt.Sprintf("nested more than %d levels deep: take levels out", maxDepth)}
		case len(n.levels) > 0 && n.levels[len(n.levels)-1].keys > maxKeys:
			return &Error{tk.Position.Line, fmt.Sprintf("more than %d keys in one mapping: take some out", maxKeys)}
		case references > maxReferences:
			return &Error{tk.Position.Line, fmt.Sprintf("more than %d anchors, aliases and tags: take some out", maxReferences)}
		}
	}
	return nil
}

// begins puts the first token of a line, or of what stands behind a dash, where it
// belongs. Within brackets, columns mean nothing.
func (n *nest) begins(tk *token.Token) {
	column, sequence := tk.Position.Column, tk.Type == token.SequenceEntryType
	for len(n.levels) > 0 {
		top := n.levels[len(n.levels)-1]
		if top.column < column || top.column == column && (sequence || !top.sequence) {
			break
		}
		n.levels = n.levels[:len(n.levels)-1]
	}
	if len(n.levels) == 0 || n.levels[len(n.levels)-1].column < column || n.levels[len(n.levels)-1].sequence != sequence {
		n.levels = append(n.levels, level{column: column, sequence: sequence})
	}
	if !sequence {
		n.levels[len(n.levels)-1].keys++
	}
}
