package smtp

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"bulkmail/testdata/testrun"
)

const postfixMain = `
compatibility_level = 3.6
queue_directory = DIR/spool
data_directory = DIR/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
maillog_file = DIR/log
maillog_file_prefixes = DIR
mynetworks = 127.0.0.0/8
myhostname = mx.test
mydestination =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
default_transport = discard:
local_transport = discard:
smtpd_peername_lookup = no
smtpd_recipient_restrictions = check_recipient_access regexp:DIR/etc/recipients, permit_mynetworks, reject
smtpd_tls_security_level = may
smtpd_tls_cert_file = DIR/etc/cert.pem
smtpd_tls_key_file = DIR/etc/key.pem
smtpd_sasl_auth_enable = yes
smtpd_sasl_path = smtpd
cyrus_sasl_config_path = DIR/etc/sasl
smtpd_sasl_local_domain = mx.test
smtpd_recipient_limit = 15
smtpd_error_sleep_time = 0
enable_long_queue_ids = yes
EXTRA
`

const postfixMaster = `
ADDR inet n - n - - smtpd
postlog unix-dgram n - n - 1 postlogd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
discard unix - - n - - discard
smtp unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
anvil unix - - n - 1 anvil
proxymap unix - - n - - proxymap
`

var (
	postfixSent = regexp.MustCompile(`to=<([^>]+)>.* status=sent`)
	postfixFrom = regexp.MustCompile(`qmgr\[\d+\]: (\w+): from=<news\+(\d+)@`)
	postfixTo   = regexp.MustCompile(`discard\[\d+\]: (\w+): to=<ok-(\d+)-`)
)

// startPostfix runs a Postfix of its own that defers, refuses and throws away
// by the recipient's name. Its short queue ids come back within a run.
func startPostfix(t *testing.T, extra string) (addr, log string) {
	t.Helper()
	postfix := peerProgram(t, "postfix")
	dir := peerFolder(t)
	addr = freeAddr(t)
	fill := strings.NewReplacer("DIR", dir, "ADDR", addr, "EXTRA", extra)
	writeFile(t, dir+"/etc/main.cf", fill.Replace(postfixMain))
	writeFile(t, dir+"/etc/master.cf", fill.Replace(postfixMaster))
	writeFile(t, dir+"/etc/recipients", "/^later/ 450 4.2.1 later\n/^never/ 550 5.1.1 never\n")
	writeFile(t, dir+"/etc/sasl/smtpd.conf", "pwcheck_method: auxprop\nauxprop_plugin: sasldb\nsasldb_path: "+dir+"/etc/sasl/db\nmech_list: PLAIN LOGIN CRAM-MD5 SCRAM-SHA-256\n")
	cert, key := testPEM(t)
	for from, to := range map[string]string{cert: "cert.pem", key: "key.pem"} {
		b, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(dir, "etc", to), string(b))
	}
	for _, folder := range []string{"spool", "data"} {
		if err := os.Mkdir(filepath.Join(dir, folder), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	password := peerCommand(peerProgram(t, "saslpasswd2"), "-p", "-c", "-f", dir+"/etc/sasl/db", "-u", "mx.test", "ann")
	password.Stdin = strings.NewReader("secret")
	for _, cmd := range []func() ([]byte, error){
		password.CombinedOutput,
		peerCommand("chown", "-R", "postfix", dir+"/data", dir+"/etc/sasl").CombinedOutput,
		peerCommand(postfix, "-c", dir+"/etc", "start").CombinedOutput,
	} {
		if out, err := cmd(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	t.Cleanup(func() { _ = peerCommand(postfix, "-c", dir+"/etc", "stop").Run() })
	log = dir + "/log"
	awaitListener(t, addr, func() string { b, _ := os.ReadFile(log); return string(b) })
	return addr, log
}

// postfixSenders is underTheirSender for a log that names sender and recipient
// in lines of their own, with the queue id in both.
func postfixSenders(t *testing.T, log string) {
	t.Helper()
	b, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	sender := map[string]string{}
	for _, m := range postfixFrom.FindAllSubmatch(b, -1) {
		sender[string(m[1])] = string(m[2])
	}
	pairs := postfixTo.FindAllSubmatch(b, -1)
	if len(sender) == 0 || len(pairs) == 0 {
		t.Error("the log names no sender, or no recipient")
	}
	for _, m := range pairs {
		if from := sender[string(m[1])]; from != string(m[2]) {
			t.Errorf("a recipient of news+%s got the message of news+%s", m[2], from)
		}
	}
}

func TestPostfix(t *testing.T) {
	t.Parallel()
	addr, log := startPostfix(t, "")
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	cert, _ := testPEM(t)
	t.Cleanup(func() { postfixSenders(t, log) })
	total := 0
	for i, c := range []struct {
		name   string
		dialer *Dialer
	}{
		{"pipelined", &Dialer{TLS: NoTLS, Overlap: OverlapOff}},
		{"overlapped", &Dialer{TLS: NoTLS, Overlap: OverlapOn}},
		{"auto, TLS verified", &Dialer{TLS: Required, TLSCA: cert}},
		{"talk_attempts=2", &Dialer{TLS: NoTLS, TalkAttempts: 2}},
		{"PLAIN", &Dialer{TLS: Required, TLSCA: cert, User: "ann@mx.test", Password: "secret", Auth: "PLAIN"}},
		{"LOGIN", &Dialer{TLS: Required, TLSCA: cert, User: "ann@mx.test", Password: "secret", Auth: "LOGIN"}},
		{"CRAM-MD5", &Dialer{TLS: Required, TLSCA: cert, User: "ann@mx.test", Password: "secret", Auth: "CRAM-MD5"}},
		{"SCRAM-SHA-256", &Dialer{TLS: Required, TLSCA: cert, User: "ann@mx.test", Password: "secret", Auth: "SCRAM-SHA-256"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := c.dialer
			d.Addr, d.Domain, d.Tries = "localhost:"+port, "client.test", 3
			envelopes := mixedEnvelopes(t, testrun.InFull(120, 30), 25)
			for _, e := range envelopes {
				for r := range e.Recipients {
					e.Recipients[r].Mailbox = strings.Replace(e.Recipients[r].Mailbox, "@", fmt.Sprintf("-%d@", i), 1)
				}
			}
			results := sendAll(t, d, envelopes, 3)
			total += countAccepted(results)
			took := logged(t, log, postfixSent, total)
			for to := range took {
				if !strings.Contains(to, fmt.Sprintf("-%d@", i)) {
					delete(took, to)
				}
			}
			compare(t, envelopes, results, took)
		})
	}
}

// The default limits of errors cut sessions short in mid-envelope; that costs
// nobody a verdict.
func TestPostfixCutsSessionsAfterTwentyErrors(t *testing.T) {
	t.Parallel()
	addr, log := startPostfix(t, "smtpd_soft_error_limit = 1000\nsmtpd_hard_error_limit = 20\nsmtpd_discard_ehlo_keywords = chunking")
	d := plainDialer(addr)
	d.Overlap = OverlapOn
	envelopes := mixedEnvelopes(t, testrun.InFull(100, 40), 30)
	results := sendAll(t, d, envelopes, 2)
	compare(t, envelopes, results, logged(t, log, postfixSent, countAccepted(results)))
	postfixSenders(t, log)
}

func TestPostfixWithoutPipelining(t *testing.T) {
	t.Parallel()
	addr, log := startPostfix(t, "smtpd_discard_ehlo_keywords = pipelining, dsn, etrn")
	envelopes := mixedEnvelopes(t, testrun.InFull(60, 20), 10)
	results := sendAll(t, plainDialer(addr), envelopes, 2)
	compare(t, envelopes, results, logged(t, log, postfixSent, countAccepted(results)))
	postfixSenders(t, log)
}
