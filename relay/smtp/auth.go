package smtp

import (
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/emersion/go-sasl"
)

type credentials struct {
	user, password string
}

func (c credentials) none() bool { return c.user == "" && c.password == "" }

// credentials reads the password file each time, so that a changed password
// needs no restart.
func (d *Dialer) credentials() (credentials, error) {
	c := credentials{d.User, d.Password}
	if d.PasswordFile != "" {
		b, err := os.ReadFile(d.PasswordFile)
		if err != nil {
			return c, fmt.Errorf("password_file: %w", err)
		}
		c.password = strings.TrimRight(string(b), "\r\n")
	}
	return c, nil
}

// preferred are the mechanisms we choose ourselves, best first. In the clear
// those come first that do not give the password away. XOAUTH2 is only used by
// name: its password is a token.
func preferred(encrypted bool) []string {
	if encrypted {
		return []string{"SCRAM-SHA-256", "PLAIN", "LOGIN", "CRAM-MD5"}
	}
	return []string{"SCRAM-SHA-256", "CRAM-MD5", "PLAIN", "LOGIN"}
}

// authenticate logs in (RFC 4954). One mechanism is tried: a second wrong
// answer is what locks accounts.
func (s *Session) authenticate(c credentials) *Error {
	encrypted := s.TLS() != nil
	if !encrypted && !s.d.AuthInClear {
		return s.require(cmdAuth, "a password must not travel in the clear: set tls=required")
	}
	mechanism := strings.ToUpper(s.d.Auth)
	if mechanism == "" {
		i := slices.IndexFunc(preferred(encrypted), func(m string) bool { return slices.Contains(s.caps.Auth, m) })
		if i < 0 {
			return s.require(cmdAuth, "the server offers no AUTH that we know (it offers %q)", s.caps.Auth)
		}
		mechanism = preferred(encrypted)[i]
	} else if !slices.Contains(s.caps.Auth, mechanism) {
		return s.require(cmdAuth, "the server does not offer AUTH %s (it offers %q): see auth", mechanism, s.caps.Auth)
	}
	client, err := s.mechanism(mechanism, c)
	if err != nil {
		return s.require(cmdAuth, "%w", err)
	}
	if err := s.exchange(client); err != nil {
		return err
	}
	s.login = mechanism
	return nil
}

func (s *Session) mechanism(name string, c credentials) (sasl.Client, error) {
	switch name {
	case "PLAIN":
		return sasl.NewPlainClient("", c.user, c.password), nil
	case "LOGIN":
		return &login{credentials: c}, nil
	case "CRAM-MD5":
		return &cramMD5{c}, nil
	case "SCRAM-SHA-256":
		return newSCRAM(c)
	case "XOAUTH2":
		return &xoauth2{c}, nil
	}
	return nil, fmt.Errorf("auth %s is not one of PLAIN, LOGIN, CRAM-MD5, SCRAM-SHA-256, XOAUTH2", name)
}

func (s *Session) exchange(client sasl.Client) *Error {
	mechanism, initial, err := client.Start()
	if err != nil {
		return s.require(cmdAuth, "%w", err)
	}
	line := "AUTH " + mechanism
	s.said([]byte(line))
	s.secret = true
	defer func() { s.secret = false }()
	if initial != nil {
		encoded := base64.StdEncoding.EncodeToString(initial)
		if encoded == "" {
			encoded = "="
		}
		// A line has room for 512 octets in any server (RFC 5321,
		// 4.5.3.1.4); what does not fit waits for the empty challenge.
		if len(line)+1+len(encoded) <= 510 {
			line, initial = line+" "+encoded, nil
		}
	}
	a, e := s.ask(cmdAuth, line)
	if e != nil {
		return e
	}
	for challenges := 1; a.code == 334; challenges++ {
		if challenges > maxChallenges {
			return s.giveUp(errChallenges)
		}
		var response []byte
		if response, initial = initial, nil; response == nil {
			challenge, err := base64.StdEncoding.DecodeString(string(a.text))
			if err == nil {
				response, err = client.Next(challenge)
			}
			if err != nil {
				return s.giveUp(err)
			}
		}
		if a, e = s.ask(cmdAuth, base64.StdEncoding.EncodeToString(response)); e != nil {
			return e
		}
	}
	if e := s.expect(cmdAuth, a, ""); e != nil {
		return e
	}
	if m, ok := client.(interface{ proven() bool }); ok && !m.proven() {
		return s.require(cmdAuth, "%w", errImpostor)
	}
	return nil
}

// maxChallenges is more than any mechanism that we know has. A server may ask on
// for ever.
const maxChallenges = 8

var errChallenges = errors.New("one challenge after the other")

var errImpostor = errors.New("the server did not prove that it knows the password")

// giveUp cancels the exchange (RFC 4954, 4) because of what the server said.
func (s *Session) giveUp(cause error) *Error {
	if _, err := s.ask(cmdAuth, "*"); err != nil {
		return err
	}
	return s.require(cmdAuth, "the server's challenge makes no sense: %w", cause)
}
