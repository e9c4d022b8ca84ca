package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"bulkmail/envelope/dkim"
)

func newDKIM(s *streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "dkim",
		Short: "Keys that sign messages",
		Long: `Keys that sign messages, so that receivers know whose they are (DKIM, RFC 6376).

BULKMAIL_DKIM_FILE is a YAML file:

  keys:
    - domain: example.com   # of From, or one above it
      selector: s1
      key_file: s1.pem      # relative to this file; PKCS #1 or PKCS #8

All keys whose domain belongs to the organization of From sign. A relay may have
dkim=off, for one that signs itself, and dkim_unsigned=message-id,date, for one
that changes these fields. Amazon SES is one: it adds Message-ID and Date of its own,
and refuses a second signature where it signs itself.`,
		Example: "  bulkmail dkim keygen --domain example.com --selector s1 --out s1.pem",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newDKIMKeygen(s))
	return cmd
}

func newDKIMKeygen(s *streams) *cobra.Command {
	var domain, selector, out, kind string
	cmd := &cobra.Command{
		Use:   "keygen --domain D --selector S --out FILE",
		Short: "Make a key and print the DNS record for it",
		Long: `Make a private key, for its owner alone, and print the DNS record to publish, as a
line of a zone file. A file that is there is never written over.

Gmail does not believe Ed25519 (June 2026): use such a key beside one of RSA.`,
		Example: "  bulkmail dkim keygen --domain example.com --selector s1 --out s1.pem",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if kind != "rsa" && kind != "ed25519" {
				return usage(cmd, fmt.Errorf("--type %q: use rsa or ed25519", kind))
			}
			text, err := dkim.Generate(kind)
			if err != nil {
				return err
			}
			k, err := dkim.NewKey(domain, selector, text)
			if err != nil {
				return usage(cmd, err)
			}
			if err := writeNew(out, text); err != nil {
				return err
			}
			_, err = fmt.Fprintln(s.out, k.ZoneRecord())
			return err
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&domain, "domain", "", "`DOMAIN` that signs")
	flags.StringVar(&selector, "selector", "", "`NAME` of the key within the domain")
	flags.StringVar(&out, "out", "", "`FILE` for the private key")
	flags.StringVar(&kind, "type", "rsa", "`TYPE` of the key: rsa (2,048 bits) or ed25519")
	for _, name := range []string{"domain", "selector", "out"} {
		if err := cmd.MarkFlagRequired(name); err != nil {
			panic(err)
		}
	}
	return cmd
}

// writeNew writes a file that must not be there yet, for its owner alone.
func writeNew(file string, text []byte) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("--out %s: the file is there, and a key is never written over: choose another name", file)
	}
	if err != nil {
		return fmt.Errorf("--out: %w", err)
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Close())
}
