package mustache

import "slices"

// A Context is where names are looked up: in the sections that are open, the
// innermost first, then in the data from the last to the first, then in what
// is known without data. It is used again for letter after letter.
type Context struct {
	// Known is what is known without data, and whether there is such a thing.
	Known func(name string) (text []byte, ok bool)

	frames []Value
}

// Begin forgets what was and takes the data, the last of which goes first.
func (c *Context) Begin(data ...Value) {
	c.frames = append(c.frames[:0], data...)
}

// Execute writes the template. The error is a *[MissingError] or what the sink
// said.
func (c *Context) Execute(nodes []Node, s Sink) error {
	for i := range nodes {
		n := &nodes[i]
		var err error
		switch n.Kind {
		case Literal:
			err = s.Literal(n)
		case Variable:
			err = c.variable(n, s)
		case Section:
			err = c.section(n, s)
		case Inverted:
			if v, known := c.lookup(n); !v.truthy() && len(known) == 0 {
				err = c.Execute(n.Nodes, s)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// lookup finds what a name means: a value of the data, or a text that is known
// without them.
func (c *Context) lookup(n *Node) (v Value, known []byte) {
	if len(n.Path) == 0 {
		if len(c.frames) == 0 {
			return Value{}, nil
		}
		return c.frames[len(c.frames)-1], nil
	}
	for _, frame := range slices.Backward(c.frames) {
		if v = frame.Get(n.Path[0]); v.Type() != Missing {
			for _, name := range n.Path[1:] {
				v = v.Get(name)
			}
			return v, nil
		}
	}
	if c.Known != nil && len(n.Path) == 1 {
		if text, ok := c.Known(n.Name); ok {
			return Value{}, text
		}
	}
	return Value{}, nil
}

func (c *Context) variable(n *Node, s Sink) error {
	v, text := c.lookup(n)
	missing := text == nil
	switch v.Type() {
	case String, Number, True, False:
		text, missing = v.Text(), false
	case List, Object:
		return &MissingError{Name: n.Name, Reason: "is a list or an object, not a text"}
	}
	if n.HasElse && len(text) == 0 {
		text = n.Default
	} else if missing {
		return &MissingError{Name: n.Name}
	}
	return s.Value(n, text)
}

func (c *Context) section(n *Node, s Sink) error {
	v, known := c.lookup(n)
	if len(known) > 0 {
		return c.Execute(n.Nodes, s)
	}
	if !v.truthy() {
		return nil
	}
	depth := len(c.frames)
	if v.Type() != List {
		c.frames = append(c.frames, v)
		err := c.Execute(n.Nodes, s)
		c.frames = c.frames[:depth]
		return err
	}
	for item := v.first(); item.Type() != Missing; item = item.next() {
		c.frames = append(c.frames, item)
		err := c.Execute(n.Nodes, s)
		c.frames = c.frames[:depth]
		if err != nil {
			return err
		}
	}
	return nil
}
