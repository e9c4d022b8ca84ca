package config

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
)

// A Problem is one thing that is wrong with the configuration. No problem
// shows a password.
type Problem struct {
	Where  string // "relays.yaml:12", "BULKMAIL_RELAYS, URL 2"; may be empty
	Key    string // "relays[1].port", as it is called there; may be empty
	Reason string // what is wrong and what to do, on one line
}

// Error is "where: key: reason" on one line.
func (p *Problem) Error() string {
	parts := slices.DeleteFunc([]string{p.Where, p.Key, p.Reason}, func(s string) bool { return s == "" })
	return strings.Join(parts, ": ")
}

// Problems are all that is wrong with the configuration, in the order of the
// files and lines.
type Problems []*Problem

// Error has one line for each problem.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap gives errors.As each [*Problem].
func (ps Problems) Unwrap() []error {
	errs := make([]error, len(ps))
	for i, p := range ps {
		errs[i] = p
	}
	return errs
}

// A place is where something was written: a line of a file, or a URL of a
// list.
type place struct {
	source string
	line   int // from 1; 0: the source as a whole
	url    int // from 1, where the source is a list of URLs
}

func (p place) String() string {
	switch {
	case p.url > 0:
		return p.source + ", URL " + strconv.Itoa(p.url)
	case p.line > 0:
		return p.source + ":" + strconv.Itoa(p.line)
	}
	return p.source
}

// A problemList gathers problems in any order, and as many as somebody reads.
type problemList struct {
	found []placedProblem
}

// maxProblems is how many problems are told. What made a hundred makes thousands, and
// a file may be made to.
const maxProblems = 100

// full tells whether no more problems are told.
func (l *problemList) full() bool { return len(l.found) >= maxProblems }

type placedProblem struct {
	*Problem
	at place
}

func (l *problemList) add(at place, key, reason string) {
	if l.full() {
		return
	}
	p := placedProblem{&Problem{Where: at.String(), Key: key, Reason: reason}, at}
	// What is wrong with a default is wrong for each relay, and said once.
	if !slices.ContainsFunc(l.found, func(q placedProblem) bool { return *q.Problem == *p.Problem }) {
		l.found = append(l.found, p)
	}
}

// join sorts the problems by line within each source. It returns nil if there
// are none.
func (l *problemList) join() error {
	if len(l.found) == 0 {
		return nil
	}
	sources := map[string]int{}
	for _, p := range l.found {
		if _, ok := sources[p.at.source]; !ok {
			sources[p.at.source] = len(sources)
		}
	}
	slices.SortStableFunc(l.found, func(a, b placedProblem) int {
		return cmp.Or(
			cmp.Compare(sources[a.at.source], sources[b.at.source]),
			cmp.Compare(a.at.url, b.at.url),
			cmp.Compare(a.at.line, b.at.line),
		)
	})
	problems := make(Problems, len(l.found))
	for i, p := range l.found {
		problems[i] = p.Problem
	}
	if l.full() {
		problems = append(problems, &Problem{Reason: "there may be more than these " + strconv.Itoa(maxProblems) + " problems: solve them first"})
	}
	return problems
}
