// Package conffile reads configuration files within bounds, so that one that is
// broken, or made to do harm, costs a line and not the memory of the host.
//
// [Read] takes a file of at most 1 MiB, of whatever form. [ParseYAML] parses YAML
// that is at most 32 levels deep: the parser goes down a level by a call of its own,
// and a file of 500,000 levels took 24 GB. It also needs time by the square of the
// keys of one mapping, and some kilobytes for every few characters where these are
// all signs of YAML; so both have bounds far above what a list of relays needs.
package conffile

import (
	"errors"
	"io"
	"os"
)

// MaxSize is the size of the largest file, in octets.
const MaxSize = 1 << 20

// ErrTooLarge is a file of more than [MaxSize] octets.
var ErrTooLarge = errors.New("larger than 1 MiB: name another file, or make it smaller")

// Read is [os.ReadFile] for a file of at most [MaxSize] octets. /dev/zero is a file
// too, so it does not ask for the size.
func Read(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, MaxSize+1))
	if err != nil {
		return nil, err
	}
	if len(data) > MaxSize {
		return nil, &os.PathError{Op: "read", Path: name, Err: ErrTooLarge}
	}
	return data, nil
}
