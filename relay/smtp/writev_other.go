//go:build !unix

package smtp

import (
	"net"
	"syscall"
)

func socketOf(*net.TCPConn) syscall.RawConn { return nil }

func writev(uintptr, *[2][]byte) (int, error) { return 0, syscall.EINVAL }
