// Package testdata holds made-up lists and messages, for the demo and for tests.
package testdata

import _ "embed" // the files below

// Recipients is a list of 2,000 recipients in 150 domains, one a line.
//
//go:embed recipients.txt
var Recipients string

// Nasty is a list of addresses as they should not be, and some that only look
// so.
//
//go:embed nasty.txt
var Nasty string

// Plain is a message of a few lines of text.
//
//go:embed plain.eml
var Plain string

// Multipart is a message with an attachment and long lines.
//
//go:embed multipart.eml
var Multipart string

// Rowers is a list with names and who is a member, for the newsletter.
//
//go:embed rowers.csv
var Rowers string

// Newsletter is a template of letters: plain text and HTML, an attachment, a link
// to unsubscribe.
//
//go:embed newsletter.eml
var Newsletter string
