// Package keyring keeps the key of Message-IDs, unsubscribe tokens and bounce
// addresses on the broker, for workers and whoever serves unsubscribes where
// BULKMAIL_KEYS_FILE names no file. It stands in a bucket of its own, which nobody
// who merely publishes needs to read.
package keyring

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"bulkmail/envelope/keys"
	"bulkmail/subjects"
)

// entry is where the keys stand, in the form of a keys file.
const entry = "keys"

// Shared reads the keys. The first who asks makes one; all get the same.
func Shared(ctx context.Context, js jetstream.JetStream, names subjects.Names) (keys.Keys, error) {
	bucket, err := js.KeyValue(ctx, names.KeyBucket())
	if err != nil {
		return nil, fmt.Errorf("bucket %s: %w", names.KeyBucket(), err)
	}
	kept, err := bucket.Get(ctx, entry)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		var made *keys.Key
		if made, err = keys.Generate("shared-" + time.Now().UTC().Format("20060102")); err != nil {
			return nil, err
		}
		if _, err = bucket.Create(ctx, entry, []byte(made.Line()+"\n")); err != nil && !errors.Is(err, jetstream.ErrKeyExists) {
			return nil, fmt.Errorf("bucket %s: %w", names.KeyBucket(), err)
		}
		kept, err = bucket.Get(ctx, entry) // somebody else may have been faster
	}
	if err != nil {
		return nil, fmt.Errorf("bucket %s: %w", names.KeyBucket(), err)
	}
	read, err := keys.Parse(string(kept.Value()))
	if err != nil {
		return nil, fmt.Errorf("bucket %s, %s: %w", names.KeyBucket(), entry, err)
	}
	return read, nil
}
