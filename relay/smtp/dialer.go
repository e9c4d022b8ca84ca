package smtp

import (
	"context"
	"log/slog"
	"net"
	"time"
)

// TLSMode says when a session is encrypted.
type TLSMode uint8

const (
	Opportunistic TLSMode = iota // STARTTLS when offered (Postfix' "may")
	NoTLS                        // in the clear
	Required                     // STARTTLS, or nothing is sent
	Implicit                     // TLS from the first byte (smtps, RFC 8314)
)

// Verify says whether the server's certificate must be valid for its host.
type Verify uint8

const (
	VerifyAsMode Verify = iota // with Required and Implicit, not with Opportunistic
	VerifyAlways
	VerifyNever // anybody in between can read and change what is sent
)

// verified tells whether the certificate must be valid.
func (d *Dialer) verified() bool {
	return d.TLSVerify == VerifyAlways || d.TLSVerify == VerifyAsMode && (d.TLS == Required || d.TLS == Implicit)
}

// Overlap says whether the end of one message and the start of the next
// envelope travel in one group (RFC 2920, 3.1).
type Overlap uint8

const (
	OverlapAuto Overlap = iota // when measuring this server both ways shows that it pays
	OverlapOff
	OverlapOn
)

// A Dialer makes sessions with one server. It is safe for concurrent use and
// carries what its sessions learn about the server from one to the next.
// Its fields must not change after the first Dial.
type Dialer struct {
	Addr   string // host:port
	Domain string // said in EHLO; empty: MBS010
	LMTP   bool

	TLS       TLSMode
	TLSVerify Verify // whether the certificate must be valid for the host of Addr
	TLSCA     string // PEM file; empty: the system's roots
	TLSCert   string // PEM file of a client certificate
	TLSKey    string

	Auth         string // mechanism; empty: the best that both know
	User         string
	Password     string
	PasswordFile string // read anew when it changes
	AuthInClear  bool   // allow AUTH without TLS

	Tries        int           // dials per Dial, over all addresses of the host; below 1: MBS017
	TalkAttempts int           // times a command is tried on 4xx; below 1 is 1
	Timeout      time.Duration // per command; 0: RFC 5321, 4.5.3.2
	Overlap      Overlap

	Conversation func(line string)                                                 // each line of the conversation; nil: none
	Took         func(Phase, time.Duration)                                        // how long each phase took that came to its end; called by every session, and must not wait; nil: nobody
	NetDial      func(ctx context.Context, network, addr string) (net.Conn, error) // nil: net.Dialer
	Log          *slog.Logger                                                      // nil: discarded

	askAgain time.Duration // how long the consent of a guard is good for; 0: askAgainAfter

	tls     tlsSetup
	learnt  learner
	crowded crowd
}
