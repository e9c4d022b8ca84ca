package subjects

import (
	"fmt"
	"strings"
	"time"
)

// A RelayLedger is what the fleet knows of the allowance of one relay: the value
// kept under [RelayKey] in the relays bucket, as JSON. It is written only over
// the revision that its writer saw last, and all its times are the broker's.
//
// A writer cannot know the broker's time of what it is about to write. What it
// reports stands in Fresh, therefore, and happened before the time at which the
// broker stored the entry; the next writer moves it to where it belongs.
type RelayLedger struct {
	Fresh int `json:"fresh,omitempty"` // messages reported by this very entry, part of Used and Awake

	Used       int       `json:"used"`                 // messages counted towards max_messages, in this window
	WindowEnds time.Time `json:"window_ends,omitzero"` // of max_messages_window

	Awake       int       `json:"awake,omitempty"`       // messages counted since the relay woke up
	AsleepUntil time.Time `json:"asleep_until,omitzero"` // max_messages_while_awake was reached

	Recent [][2]int64 `json:"recent,omitempty"` // max_rate: microseconds since 1970, messages; oldest first
	Paced  time.Time  `json:"paced,omitzero"`   // max_rate: when a full envelope may be leased again
	Dry    bool       `json:"dry,omitempty"`    // max_rate: nothing may be leased before Paced

	Spread    time.Time `json:"spread,omitzero"` // max_messages_spread: as Paced
	SpreadDry bool      `json:"spread_dry,omitempty"`

	Addr string `json:"addr,omitempty"` // host:port of the server, as its last writer has it configured
	Caps string `json:"caps,omitempty"` // the caps, the same: settings and values

	Resets  int                   `json:"resets,omitempty"`  // counts `relays reset`
	Workers map[string]RelayShare `json:"workers,omitempty"` // by name: what is leased
}

// A RelayShare is what one worker has leased of a relay's allowance.
type RelayShare struct {
	Held   int    `json:"held"`            // messages leased and not reported; they count towards every cap
	Serial uint64 `json:"serial"`          // counts the entries of this worker
	Wants  bool   `json:"wants,omitempty"` // it could send more, but others hold what is left
	// Seen is when that was stored; missing in that very entry, as with Fresh.
	Seen time.Time `json:"seen,omitzero"`
}

// WorkerRelays is what a worker says of its relays every few seconds: the value
// kept under [WorkerKey] in the relays bucket, as JSON. One that has not been
// renewed for [WorkerSilence] is that of a worker that is gone.
type WorkerRelays struct {
	Worker string        `json:"worker"`
	Relays []RelayStatus `json:"relays"`
}

// WorkerSilence is the age at which [WorkerRelays] no longer mean anything.
const WorkerSilence = 20 * time.Second

// RelayStatus is one relay as one worker sees it.
type RelayStatus struct {
	Relay         string    `json:"relay"`
	Addr          string    `json:"addr,omitempty"` // host:port of its server
	Caps          string    `json:"caps,omitempty"` // that it is configured with: settings and values, or none
	State         string    `json:"state"`          // untried, awake, asleep, paced, exhausted, parked, worthless
	Until         time.Time `json:"until,omitzero"`
	Sessions      int       `json:"sessions"`
	Busy          int       `json:"busy"`
	Messages      int64     `json:"messages"` // accepted, recipients
	LastMessage   time.Time `json:"last_message,omitzero"`
	LastError     string    `json:"last_error,omitempty"`
	LastErrorCode int       `json:"last_error_code,omitempty"` // of the SMTP reply
	LastErrorMBS  string    `json:"last_error_mbs,omitempty"`
	LastErrorTime time.Time `json:"last_error_time,omitzero"`
}

// Prefixes of the keys in the relays bucket.
const (
	relayKeyPrefix  = "relay."
	workerKeyPrefix = "worker."
)

// RelayKeys and WorkerKeys match all keys of their kind.
const (
	RelayKeys  = relayKeyPrefix + "*"
	WorkerKeys = workerKeyPrefix + "*"
)

// RelayKey is the key of a relay's [RelayLedger]. Names may contain what keys
// may not: every octet but letters, digits, - and _ is written as = and two
// hexadecimal digits.
func RelayKey(name string) string { return relayKeyPrefix + keyToken(name) }

// WorkerKey is the key of a worker's [WorkerRelays], encoded in the same way.
func WorkerKey(name string) string { return workerKeyPrefix + keyToken(name) }

// RelayOfKey is the name of the relay whose ledger has that key.
func RelayOfKey(key string) (name string, ok bool) {
	token, ok := strings.CutPrefix(key, relayKeyPrefix)
	if !ok {
		return "", false
	}
	var b strings.Builder
	for i := 0; i < len(token); i++ {
		if token[i] != '=' {
			b.WriteByte(token[i])
			continue
		}
		var octet byte
		if i+3 > len(token) {
			return "", false
		}
		if _, err := fmt.Sscanf(token[i+1:i+3], "%02X", &octet); err != nil {
			return "", false
		}
		b.WriteByte(octet)
		i += 2
	}
	return b.String(), true
}

func keyToken(name string) string {
	var b strings.Builder
	for i := range len(name) {
		switch c := name[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "=%02X", c)
		}
	}
	return b.String()
}
