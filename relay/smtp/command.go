package smtp

import "time"

// A command is what a reply answers.
type command uint8

const (
	cmdConnect command = iota
	cmdEHLO
	cmdHELO
	cmdLHLO
	cmdStartTLS
	cmdAuth
	cmdRSET
	cmdMAIL
	cmdRCPT
	cmdDATA
	cmdEnd // the lone dot
	cmdQUIT
)

func (c command) String() string {
	switch c {
	case cmdConnect:
		return "CONNECT"
	case cmdEHLO:
		return "EHLO"
	case cmdHELO:
		return "HELO"
	case cmdLHLO:
		return "LHLO"
	case cmdStartTLS:
		return "STARTTLS"
	case cmdAuth:
		return "AUTH"
	case cmdRSET:
		return "RSET"
	case cmdMAIL:
		return "MAIL"
	case cmdRCPT:
		return "RCPT"
	case cmdDATA:
		return "DATA"
	case cmdEnd:
		return "END"
	case cmdQUIT:
		return "QUIT"
	}
	return "?"
}

// Timeouts of RFC 5321, 4.5.3.2, where it has one.
const (
	dialTimeout  = 10 * time.Second // one address; a lost SYN is sent again after 1, 3 and 7 seconds
	dialPatience = 25 * time.Second // no further try after that

	// RFC 5321, 4.5.3.2.1 says five minutes. A server that has not said a word
	// by now waits for us to speak first, as TLS has it.
	greetTimeout = 30 * time.Second

	blockTimeout = 3 * time.Minute // 4.5.3.2.5: each block of the message
	quitTimeout  = 2 * time.Second // nothing depends on the reply to QUIT
	drainTimeout = 5 * time.Second // for what a server said before it stopped reading

	brokenBothWays = 100 * time.Millisecond
)

// timeout is how long the reply to c may take.
func (d *Dialer) timeout(c command) time.Duration {
	if c == cmdQUIT {
		if d.Timeout > 0 {
			return min(d.Timeout, quitTimeout)
		}
		return quitTimeout
	}
	if d.Timeout > 0 {
		return d.Timeout
	}
	switch c {
	case cmdConnect:
		return greetTimeout
	case cmdDATA:
		return 2 * time.Minute
	case cmdEnd:
		return 10 * time.Minute
	}
	return 5 * time.Minute
}

func (d *Dialer) writeTimeout() time.Duration {
	if d.Timeout > 0 {
		return d.Timeout
	}
	return blockTimeout
}
