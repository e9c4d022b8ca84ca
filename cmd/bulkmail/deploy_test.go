package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"bulkmail/envelope/keys"
	"bulkmail/envelope/returnpath"
	"bulkmail/subjects"
	"bulkmail/worker/keyring"
)

// deployed is one node as testdata/deploy/nats.conf says, without its cluster, on
// loopback.
type deployed struct {
	url, tls string
	opts     *server.Options
	log      *brokerLog
}

var deployedUsers = []string{"provision", "worker", "publisher", "operator", "feedback"}

func deploy(t *testing.T) *deployed {
	t.Helper()
	dir := t.TempDir()
	d := &deployed{tls: filepath.Join(dir, "tls"), log: &brokerLog{published: make(map[string][]string)}}
	makeCertificates(t, d.tls, append(slices.Clone(deployedUsers), "stranger")...)
	text, err := os.ReadFile("../../testdata/deploy/nats.conf")
	if err != nil {
		t.Fatal(err)
	}
	conf := strings.NewReplacer("/tls/", d.tls+"/nats/", "/data", filepath.Join(dir, "data")).Replace(string(text))
	path := filepath.Join(dir, "nats.conf")
	if err := os.WriteFile(path, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	opts, err := server.ProcessConfigFile(path)
	if err != nil {
		t.Fatal(err)
	}
	opts.Cluster, opts.Routes = server.ClusterOpts{}, nil
	opts.Host, opts.Port, opts.HTTPPort, opts.NoSigs = "127.0.0.1", server.RANDOM_PORT, server.RANDOM_PORT, true
	s, err := server.NewServer(opts)
	if err != nil {
		t.Fatal(err)
	}
	s.SetLoggerV2(d.log, false, true, false)
	s.Start()
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	if !s.ReadyForConnections(waitAtMost) {
		t.Fatal("not ready")
	}
	d.url, d.opts = s.ClientURL(), opts
	return d
}

func makeCertificates(t *testing.T, dir string, clients ...string) {
	t.Helper()
	args := []string{"certs", dir, "--server", "nats=localhost,127.0.0.1"}
	for _, name := range clients {
		args = append(args, "--client", name)
	}
	var errs strings.Builder
	if code := run(t.Context(), args, strings.NewReader(""), io.Discard, &errs); code != exitDone {
		t.Fatal(errs.String())
	}
}

// brokerLog keeps what clients published, and what they were refused.
type brokerLog struct {
	mu        sync.Mutex          // guards what follows
	published map[string][]string // subjects, by user
	refused   []string
}

var (
	publishing = regexp.MustCompile(`bulkmail (\S+)" - .*<<- \[H?PUB (\S+)(?: _INBOX_(\w+)\.)?`)
	refusing   = regexp.MustCompile(`(Publish|Subscription) Violation - .*`)
)

func (l *brokerLog) Tracef(format string, args ...any) {
	m := publishing.FindStringSubmatch(fmt.Sprintf(format, args...))
	if m == nil {
		return
	}
	user := m[1]
	switch {
	case m[3] != "": // who wants an answer is who the inbox belongs to
		user = m[3]
	case user != "worker" && user != "provision" && user != "feedback":
		user = "publisher"
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.published[user] = append(l.published[user], m[2])
}

func (l *brokerLog) Errorf(format string, args ...any) {
	if m := refusing.FindString(fmt.Sprintf(format, args...)); m != "" {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.refused = append(l.refused, m)
	}
}

func (l *brokerLog) Warnf(format string, args ...any)  { l.Errorf(format, args...) }
func (l *brokerLog) Fatalf(format string, args ...any) { l.Errorf(format, args...) }
func (l *brokerLog) Noticef(string, ...any)            {}
func (l *brokerLog) Debugf(string, ...any)             {}

// environment is that of a program which is user.
func (d *deployed) environment(user string) []string {
	return []string{
		"BULKMAIL_NATS_URL=" + d.url, "BULKMAIL_NATS_INBOX=_INBOX_" + user,
		"BULKMAIL_NATS_TLS_CA=" + filepath.Join(d.tls, user, "ca.pem"),
		"BULKMAIL_NATS_TLS_CERT=" + filepath.Join(d.tls, user, "cert.pem"),
		"BULKMAIL_NATS_TLS_KEY=" + filepath.Join(d.tls, user, "key.pem"),
	}
}

// lives the life of a deployment: every command by the user whose it is.
func (d *deployed) live(t *testing.T) {
	t.Helper()
	provision := startBulkmail(t, d.environment("provision"), "provision")
	provision.end(t)
	sink := startBulkmail(t, nil, "sink", "--reply", "RCPT:*@example.org=451 4.2.0 later", "--listen", "127.0.0.1:0")
	relays := "BULKMAIL_RELAYS=smtp://" + sink.awaitLine(t, `^listening on (\S+);`) + "?name=sink&domain=client.test&max_messages=100000"
	work := append(d.environment("worker"), relays, "BULKMAIL_RETRY_DELAYS=100ms", "BULKMAIL_RETRY_FOR=3s")
	worker := startBulkmail(t, work, "worker")
	worker.awaitLine(t, "working")
	message, err := filepath.Abs("../../testdata/plain.eml")
	if err != nil {
		t.Fatal(err)
	}
	list, err := filepath.Abs("../../testdata/recipients.txt")
	if err != nil {
		t.Fatal(err)
	}
	publish := func(args ...string) string {
		t.Helper()
		return startBulkmail(t, d.environment("publisher"), args...).end(t)
	}
	publish("suppress", "add", "--why", "asked", "ann@example.com")
	publish("suppress", "list")
	for range 2 { // the second time it is there already
		publish("publish", "--from", "news@example.com", "--message", message, "--campaign", "c", "--wait", "--max-failed", "100%", list)
	}
	operate := func(args ...string) string {
		t.Helper()
		return startBulkmail(t, d.environment("operator"), args...).end(t)
	}
	operate("pause", "c", "--why", "to see that it may")
	if status := operate("status", "c"); !strings.Contains(status, "waiting: paused by ") || !strings.Contains(status, "to see that it may") {
		t.Errorf("to an operator status says\n%s", status)
	}
	operate("resume", "c")
	operate("outcomes", "c")
	publish("pause", "c")
	publish("resume", "c")
	publish("outcomes", "c")
	if status := publish("status"); !strings.Contains(status, "finished") {
		t.Errorf("status says\n%s", status)
	}
	dead := publish("dead", "list")
	id := regexp.MustCompile(`(?m)^ *(\d+) `).FindStringSubmatch(dead)
	if id == nil {
		t.Fatalf("no dead letter is listed, though some recipients expired:\n%s", dead)
	}
	publish("dead", "show", id[1])
	publish("cancel", "c")
	startBulkmail(t, work, "relays", "list").end(t)
	startBulkmail(t, work, "relays", "reset", "sink").end(t)
	d.unsubscribe(t)
	worker.drain(t)
	publish("status") // nobody answers: it looks itself
}

// unsubscribe does what a reader of a letter does, at a process that has the key of
// the workers.
func (d *deployed) unsubscribe(t *testing.T) {
	t.Helper()
	desk := startBulkmail(t, append(d.environment("feedback"), "BULKMAIL_FEEDBACK_HTTP=127.0.0.1:0"), "feedback")
	address := "http://" + desk.awaitLine(t, `taking unsubscribes.* addr=(\S+)`)
	nc, _ := d.connect(t, "worker")
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	ring, err := keyring.Shared(t.Context(), js, subjects.Names{})
	if err != nil {
		t.Fatal(err)
	}
	token := string(ring.First().Maker().AppendToken(nil, keys.Subscription{Campaign: "c", Mailbox: "ann@example.net"}))
	unsubscribe(t, http.DefaultClient, address+"/"+token)
	desk.drain(t)

	tokens, err := returnpath.NewKeys(ring.First().Derive(returnpath.Purpose))
	if err != nil {
		t.Fatal(err)
	}
	to := "b+" + string(tokens.Minter().Mint(returnpath.Token{Sequence: 1, Batch: true})) + "@b.example.com"
	mbox := writeFile(t, "mbox", "From x\nDelivered-To: "+to+"\n\nHello.\n")
	env := append(d.environment("feedback"), "BULKMAIL_RETURN_PATH=b+{token}@b.example.com")
	if said := startBulkmail(t, env, "feedback", "--mbox", mbox).end(t); said != "1 mail: 0 taken, 0 to another address, 1 no report, 0 too old\n" {
		t.Errorf("a mail to a return path: %s", said)
	}
}

// Not needed for so little.
var whenLarge = regexp.MustCompile(`^\$JS\.FC\.`)

func TestTheDeployedPermissionsAreEnoughAndNoneIsIdle(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	defer func() { // also where something hung for want of it
		d.log.mu.Lock()
		defer d.log.mu.Unlock()
		if len(d.log.refused) > 0 {
			t.Errorf("refused, though needed:\n%s", strings.Join(d.log.refused, "\n"))
		}
	}()
	d.live(t)
	d.log.mu.Lock()
	defer d.log.mu.Unlock()
	var users []string
	for _, u := range d.opts.Users {
		user := strings.TrimPrefix(u.Username, "CN=")
		users = append(users, user)
		for _, allowed := range u.Permissions.Publish.Allow {
			used := slices.ContainsFunc(d.log.published[user], func(subject string) bool { return matches(allowed, subject) })
			if !used && !whenLarge.MatchString(allowed) {
				t.Errorf("%s may publish %s, and never does", user, allowed)
			}
		}
		hears := []string{"_INBOX_" + user + ".>"}
		if user == "worker" {
			hears = append(hears, "bulkmail.api.*.*", "$SRV.>")
		}
		if diff := cmp.Diff(hears, u.Permissions.Subscribe.Allow); diff != "" {
			t.Errorf("%s may hear -want +got\n%s", user, diff)
		}
	}
	if diff := cmp.Diff(deployedUsers, users); diff != "" {
		t.Errorf("users -want +got\n%s", diff)
	}
}

// matches tells whether the subject is one of those that a pattern stands for.
func matches(pattern, subject string) bool {
	p, s := strings.Split(pattern, "."), strings.Split(subject, ".")
	for i, token := range p {
		switch {
		case token == ">":
			return len(s) > i
		case i >= len(s), token != "*" && token != s[i]:
			return false
		}
	}
	return len(p) == len(s)
}

func TestTheDeployedPermissionsAllowNothingElse(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	startBulkmail(t, d.environment("provision"), "provision").end(t)
	everybody := []string{
		"$JS.API.STREAM.DELETE.BULKMAIL_BATCHES", "$JS.API.STREAM.PURGE.BULKMAIL_OUTCOMES", "$JS.API.STREAM.UPDATE.BULKMAIL_OUTCOMES",
		"$JS.API.STREAM.MSG.DELETE.BULKMAIL_BATCHES", "$JS.API.STREAM.PURGE.BULKMAIL_SUPPRESSIONS", "$JS.API.STREAM.MSG.GET.OBJ_bulkmail-messages", "$JS.API.STREAM.CREATE.MINE",
		"$JS.API.STREAM.SNAPSHOT.BULKMAIL_OUTCOMES", "$JS.API.STREAM.NAMES", "$JS.API.CONSUMER.DELETE.BULKMAIL_BATCHES.workers",
		"$JS.API.CONSUMER.CREATE.BULKMAIL_BATCHES.mine.bulkmail.batches.*", "$JS.API.CONSUMER.DURABLE.CREATE.BULKMAIL_OUTCOMES.mine",
		"$JS.API.CONSUMER.PAUSE.BULKMAIL_BATCHES.workers", "$SYS.REQ.SERVER.PING", "anything",
	}
	for user, subjects := range map[string][]string{
		"provision": {"bulkmail.batches.c", "bulkmail.outcomes.c.1", "$KV.bulkmail-campaigns.c", "$JS.API.CONSUMER.MSG.NEXT.BULKMAIL_BATCHES.workers", "$JS.API.DIRECT.GET.BULKMAIL_OUTCOMES"},
		"operator":  {"bulkmail.batches.c", "bulkmail.outcomes.c.1", "$KV.bulkmail-campaigns.c", "$JS.API.INFO", "$JS.API.DIRECT.GET.BULKMAIL_OUTCOMES.bulkmail.outcomes.c.1"},
		"worker":    {"bulkmail.batches.c", "bulkmail.suppressions", "bulkmail.api.pause.c", "_INBOX_publisher.x", "$O.bulkmail-messages.C.x", "$JS.API.CONSUMER.CREATE.BULKMAIL_BATCHES.workers"},
		"publisher": {"bulkmail.outcomes.c.1", "bulkmail.feedback.c.bounced", "bulkmail.dead.c", "$KV.bulkmail-relays.relay.x", "$JS.ACK.BULKMAIL_BATCHES.workers.1.1.1.1.1", "$JS.API.CONSUMER.MSG.NEXT.BULKMAIL_BATCHES.workers", "$JS.API.CONSUMER.CREATE.BULKMAIL_BATCHES.workers"},
		"feedback":  {"bulkmail.batches.c", "bulkmail.outcomes.c.1", "$KV.bulkmail-keys.keys", "$JS.API.STREAM.PURGE.BULKMAIL_FEEDBACK"},
	} {
		nc, refusals := d.connect(t, user)
		refused := func(what string) {
			t.Helper()
			select {
			case err := <-refusals:
				if !errors.Is(err, nats.ErrPermissionViolation) {
					t.Errorf("%s to %s: %v", user, what, err)
				}
			case <-time.After(waitAtMost):
				t.Errorf("%s may %s", user, what)
			}
		}
		for _, subject := range append(subjects, everybody...) {
			if err := nc.Publish(subject, nil); err != nil {
				t.Fatal(err)
			}
			refused("publish " + subject)
		}
		for _, subject := range []string{">", "bulkmail.batches.*", "bulkmail.outcomes.>", "_INBOX.>", "$JS.EVENT.>", "$SYS.>"} {
			if _, err := nc.SubscribeSync(subject); err != nil {
				t.Fatal(err)
			}
			refused("hear " + subject)
		}
		for _, other := range deployedUsers {
			if other != user {
				if _, err := nc.SubscribeSync("_INBOX_" + other + ".>"); err != nil {
					t.Fatal(err)
				}
				refused("hear what is told to " + other)
			}
		}
	}
}

// connect connects as a user, and hands on what the broker refuses.
func (d *deployed) connect(t *testing.T, user string) (*nats.Conn, <-chan error) {
	t.Helper()
	refusals := make(chan error, 16)
	nc, err := nats.Connect(d.url, append(d.identity(user), nats.CustomInboxPrefix("_INBOX_"+user), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { refusals <- err }))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc, refusals
}

func (d *deployed) identity(user string) []nats.Option {
	dir := filepath.Join(d.tls, user)
	return []nats.Option{nats.RootCAs(filepath.Join(d.tls, "nats", "ca.pem")), nats.ClientCert(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))}
}

func TestNobodyElseConnectsToTheDeployedBroker(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	elsewhere := &deployed{url: d.url, tls: t.TempDir()}
	makeCertificates(t, elsewhere.tls, "worker")
	for who, o := range map[string][]nats.Option{
		"without a certificate":                        {nats.RootCAs(filepath.Join(d.tls, "nats", "ca.pem"))},
		"without TLS":                                  nil,
		"with the user's name alone":                   {nats.RootCAs(filepath.Join(d.tls, "nats", "ca.pem")), nats.UserInfo("CN=worker", "")},
		"with a certificate of who is nobody":          d.identity("stranger"),
		"with the broker's own certificate":            d.identity("nats"),
		"with a certificate of an authority elsewhere": append(elsewhere.identity("worker"), nats.RootCAs(filepath.Join(d.tls, "nats", "ca.pem"))),
	} {
		if nc, err := nats.Connect(d.url, o...); err == nil {
			nc.Close()
			t.Errorf("%s one connects", who)
		}
	}
	d.connect(t, "worker") // the test would notice
}
