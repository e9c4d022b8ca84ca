//go:build unix

package smtp

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// socketOf is the socket of a connection; nil where what is written cannot be
// told from what waits to be.
func socketOf(conn *net.TCPConn) syscall.RawConn {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil
	}
	return raw
}

// writev writes what the kernel takes at once.
func writev(fd uintptr, parts *[2][]byte) (int, error) {
	n, err := unix.Writev(int(fd), parts[:])
	return max(n, 0), err
}
