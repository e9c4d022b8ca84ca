package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"bulkmail/subjects"
)

// certsOptions are the flags of certs.
type certsOptions struct {
	servers, clients []string
	days             int
	dir              string
}

func newCerts(s *streams) *cobra.Command {
	var o certsOptions
	cmd := &cobra.Command{
		Use:   "certs DIR",
		Short: "Make certificates of a throw-away authority, for trying things",
		Long: `Make a certificate authority, certificates of servers and clients, and throw the
authority's key away: nobody can make another one that these trust.

Each name gets a folder in DIR with ca.pem, cert.pem and key.pem. A server's
certificate is for its hosts and serves it as a client, too; a client's is for
CN=NAME, which a broker can map to a user. When every folder has all it needs,
and it is good for another day, nothing is made: that may be certificates of
yours. Else everything is made anew, as one authority must have signed it all;
what came from elsewhere is never written over.`,
		Example: `  bulkmail certs tls --server nats=nats-1,nats-2,nats-3 --client worker --client publisher`,
		Args:    cobra.ExactArgs(1),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveFilterDirs
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			o.dir = args[0]
			wanted, err := o.wanted(time.Now())
			if err != nil {
				return usage(cmd, err)
			}
			return o.run(s, wanted)
		},
	}
	flags := cmd.Flags()
	flags.StringArrayVar(&o.servers, "server", nil, "`NAME=HOST,HOST` of a server; may be repeated")
	flags.StringArrayVar(&o.clients, "client", nil, "`NAME` of a client; may be repeated")
	flags.IntVar(&o.days, "days", 90, "how long they are good")
	return cmd
}

// authorityName marks what this command has made, and may make anew.
const authorityName = "bulkmail throw-away authority"

// wanted are the certificates that the flags ask for.
func (o *certsOptions) wanted(now time.Time) ([]*x509.Certificate, error) {
	var problems []error
	if o.days < 1 {
		problems = append(problems, fmt.Errorf("--days %d: use 1 or more", o.days))
	}
	var wanted []*x509.Certificate
	add := func(flag, name string) *x509.Certificate {
		if !subjects.ValidID(name) {
			problems = append(problems, fmt.Errorf("--%s %q: a name has letters, digits, - or _", flag, name))
		}
		if slices.ContainsFunc(wanted, func(c *x509.Certificate) bool { return c.Subject.CommonName == name }) {
			problems = append(problems, fmt.Errorf("--%s %s: the name is taken", flag, name))
		}
		c := &x509.Certificate{
			Subject:     pkix.Name{CommonName: name},
			NotBefore:   now.Add(-time.Hour), // clocks differ
			NotAfter:    now.AddDate(0, 0, o.days),
			KeyUsage:    x509.KeyUsageDigitalSignature,
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		}
		wanted = append(wanted, c)
		return c
	}
	for _, server := range o.servers {
		name, hosts, _ := strings.Cut(server, "=")
		c := add("server", name)
		c.ExtKeyUsage = append(c.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
		for host := range strings.SplitSeq(hosts, ",") {
			switch ip := net.ParseIP(host); {
			case ip != nil:
				c.IPAddresses = append(c.IPAddresses, ip)
			case host == "":
				problems = append(problems, fmt.Errorf("--server %s: say its hosts, as in %s=a.example.net,b.example.net", server, name))
			default:
				c.DNSNames = append(c.DNSNames, host)
			}
		}
	}
	for _, name := range o.clients {
		add("client", name)
	}
	if len(wanted) == 0 {
		problems = append(problems, errors.New("say for whom, with --server or --client"))
	}
	return wanted, errors.Join(problems...)
}

func (o *certsOptions) run(s *streams, wanted []*x509.Certificate) error {
	var lacking []string
	foreign := false
	for _, c := range wanted {
		ours, err := o.inspect(c)
		if err != nil {
			lacking = append(lacking, fmt.Sprintf("%s: %v", filepath.Join(o.dir, c.Subject.CommonName), err))
		}
		foreign = foreign || !ours
	}
	switch {
	case len(lacking) == 0:
		_, err := fmt.Fprintf(s.out, "%s in %s are there already\n", count(len(wanted), "certificate", "certificates"), o.dir)
		return err
	case foreign:
		return fmt.Errorf("%s; some of the others are not of this command, and it leaves them alone", strings.Join(lacking, "; "))
	}
	if err := o.issue(wanted); err != nil {
		return err
	}
	_, err := fmt.Fprintf(s.out, "%s made in %s, good until %s\n", count(len(wanted), "certificate", "certificates"), o.dir, wanted[0].NotAfter.UTC().Format(time.DateOnly))
	return err
}

// inspect tells what is wrong with the files of one name, and whether this
// command may write them: they are its own, or there are none.
func (o *certsOptions) inspect(want *x509.Certificate) (ours bool, err error) {
	dir := filepath.Join(o.dir, want.Subject.CommonName)
	certificate, err := os.ReadFile(filepath.Join(dir, "cert.pem"))
	if errors.Is(err, fs.ErrNotExist) {
		_, noKey := os.Stat(filepath.Join(dir, "key.pem"))
		_, noAuthority := os.Stat(filepath.Join(dir, "ca.pem"))
		return errors.Is(noKey, fs.ErrNotExist) && errors.Is(noAuthority, fs.ErrNotExist), errors.New("there is none")
	}
	if err != nil {
		return false, err
	}
	if block, _ := pem.Decode(certificate); block != nil {
		c, err := x509.ParseCertificate(block.Bytes)
		ours = err == nil && c.Issuer.CommonName == authorityName
	}
	private, err := os.ReadFile(filepath.Join(dir, "key.pem"))
	if err != nil {
		return ours, err
	}
	authority, err := os.ReadFile(filepath.Join(dir, "ca.pem"))
	if err != nil {
		return ours, err
	}
	pair, err := tls.X509KeyPair(certificate, private)
	if err != nil {
		return ours, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authority)
	between := x509.NewCertPool()
	for _, der := range pair.Certificate[1:] {
		if c, err := x509.ParseCertificate(der); err == nil {
			between.AddCert(c)
		}
	}
	_, err = pair.Leaf.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}, CurrentTime: time.Now().AddDate(0, 0, 1),
	})
	for _, host := range want.DNSNames {
		err = errors.Join(err, pair.Leaf.VerifyHostname(host))
	}
	return ours, err
}

// issue makes the authority and what it signs.
func (o *certsOptions) issue(wanted []*x509.Certificate) error {
	authority := &x509.Certificate{
		Subject:               pkix.Name{CommonName: authorityName},
		NotBefore:             wanted[0].NotBefore,
		NotAfter:              wanted[0].NotAfter,
		KeyUsage:              x509.KeyUsageCertSign,
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
	}
	authorityKey, der, err := sign(authority, authority, nil)
	if err != nil {
		return err
	}
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	for _, c := range wanted {
		key, der, err := sign(c, authority, authorityKey)
		if err != nil {
			return err
		}
		private, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return err
		}
		dir := filepath.Join(o.dir, c.Subject.CommonName)
		if err := os.MkdirAll(dir, 0o750); err != nil {
			return err
		}
		// The certificate first: it tells that the rest may be written over.
		for _, file := range []struct {
			name string
			data []byte
			mode fs.FileMode
		}{
			{"cert.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644},
			{"key.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600},
			{"ca.pem", ca, 0o644},
		} {
			if err := os.WriteFile(filepath.Join(dir, file.name), file.data, file.mode); err != nil {
				return err
			}
		}
	}
	return nil
}

// sign makes a key and a certificate of it; without a signer it signs itself.
func sign(c, authority *x509.Certificate, signer *ecdsa.PrivateKey) (*ecdsa.PrivateKey, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	if signer == nil {
		signer = key
	}
	if c.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127)); err != nil {
		return nil, nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, c, authority, &key.PublicKey, signer)
	return key, der, err
}
