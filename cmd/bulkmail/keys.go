package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"bulkmail/envelope/conffile"
	"bulkmail/envelope/keys"
)

func newKeys(s *streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "keys",
		Short: "Keys of Message-IDs and unsubscribe links",
		Long: `Keys of Message-IDs, unsubscribe links and bounce addresses.

BULKMAIL_KEYS_FILE has a line a key, "ID SECRET". The first makes what is new, all
of them read what was made before: keep a key for as long as its letters may come
back, which is 60 days at least. Every worker and every feedback process needs the
same file. Without one they share a key that they keep on the broker.`,
		Example: "  BULKMAIL_KEYS_FILE=keys.txt bulkmail keys new",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newKeysNew(s))
	return cmd
}

func newKeysNew(s *streams) *cobra.Command {
	var file, id string
	cmd := &cobra.Command{
		Use:   "new",
		Short: "Put a new key in front of the others",
		Long: `Make a key and put it in front of those in the file, so that it makes what is new.
A file that is not there is made, for its owner alone.`,
		Example: "  BULKMAIL_KEYS_FILE=keys.txt bulkmail keys new\n  bulkmail keys new --file keys.txt --id 2027a",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if file == "" {
				file = os.Getenv(prefix + "_KEYS_FILE")
			}
			if file == "" {
				return usage(cmd, errors.New("say which file: set BULKMAIL_KEYS_FILE, or use --file"))
			}
			return addKey(s, file, id)
		},
	}
	cmd.Flags().StringVar(&file, "file", "", "keys `FILE` (default: BULKMAIL_KEYS_FILE)")
	cmd.Flags().StringVar(&id, "id", "", "`ID` of the key (default: made of the date)")
	return cmd
}

func addKey(s *streams, file, id string) error {
	text, err := conffile.Read(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return &usageError{err}
	}
	if strings.TrimSpace(string(text)) != "" {
		if _, err := keys.Parse(string(text)); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
	}
	if id == "" {
		id = time.Now().UTC().Format("20060102") + "-" + strings.ToLower(rand.Text()[:6])
	}
	k, err := keys.Generate(id)
	if err != nil {
		return err
	}
	added := keys.Add(string(text), k)
	if _, err := keys.Parse(added); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	if err := replaceFile(file, []byte(added)); err != nil {
		return err
	}
	_, err = fmt.Fprintf(s.out, "key %s is the first of %s now\n", id, file)
	return err
}

// replaceFile writes a file that holds secrets, whole or not at all.
func replaceFile(file string, text []byte) error {
	// The mode of CreateTemp is 0600.
	f, err := os.CreateTemp(filepath.Dir(file), filepath.Base(file)+".*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }() // gone when all went well
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), file)
}

// loadKeys reads the keys file; nil: there is none.
func loadKeys(file string) (keys.Keys, error) {
	if file == "" {
		return nil, nil
	}
	text, err := conffile.Read(file)
	if err != nil {
		return nil, fmt.Errorf("BULKMAIL_KEYS_FILE: %w", err)
	}
	read, err := keys.Parse(string(text))
	if err != nil {
		return nil, fmt.Errorf("BULKMAIL_KEYS_FILE: %s: %w", file, err)
	}
	return read, nil
}
