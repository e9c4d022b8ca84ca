package smtp

import (
	"net"
	"syscall"
)

// quickAcker makes the function that has the kernel acknowledge at once what
// has come. The option does not last, so it is set before each read that needs
// it.
func quickAcker(conn *net.TCPConn) func() {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil
	}
	set := func(fd uintptr) {
		_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_QUICKACK, 1)
	}
	return func() { _ = raw.Control(set) }
}
