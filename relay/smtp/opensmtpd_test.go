package smtp

import (
	"net"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"

	"bulkmail/testdata/testrun"
)

// Written when a message is committed, a line for each recipient.
var opensmtpdReceived = regexp.MustCompile(`smtp envelope .* to=<([^>]+)>`)

var opensmtpdSender = regexp.MustCompile(`smtp envelope .* from=<news\+(\d+)@[^>]*> to=<([^>]+)>`)

// onlyOpenSMTPD is held by the test that runs one.
var onlyOpenSMTPD sync.Mutex

// OpenSMTPD has its queue and its control socket where they were built to be:
// one at a time, and nobody else's.
func startOpenSMTPD(t *testing.T) (addr, log string) {
	t.Helper()
	return startOpenSMTPDAs(t, `
smtp limit max-rcpt 1000
table anybody { "@" = nobody }
action "nowhere" mda "cat >/dev/null" virtual <anybody>
match from any for rcpt-to regex "^ok" action "nowhere"
`)
}

func startOpenSMTPDAs(t *testing.T, config string) (addr, log string) {
	t.Helper()
	smtpd := peerProgram(t, "smtpd")
	onlyOpenSMTPD.Lock()
	t.Cleanup(onlyOpenSMTPD.Unlock)
	if conn, err := net.Dial("unix", "/var/run/smtpd.sock"); err == nil {
		_ = conn.Close()
		missing(t, "an OpenSMTPD runs on this machine already")
	}
	dir := peerFolder(t)
	addr = freeAddr(t)
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, dir+"/smtpd.conf", "listen on 127.0.0.1 port "+port+" hostname mx.test\n"+config)
	log = dir + "/log"
	f, err := os.Create(log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	cmd := peerCommand(smtpd, "-d", "-v", "-f", dir+"/smtpd.conf")
	cmd.Stdout, cmd.Stderr = f, f
	startPeer(t, addr, cmd)
	t.Cleanup(func() {
		if b, _ := os.ReadFile(log); t.Failed() {
			t.Logf("%.3000s", b)
		}
	})
	return addr, log
}

// OpenSMTPD does not offer PIPELINING and cuts sessions that use it.
func TestOpenSMTPD(t *testing.T) {
	t.Parallel()
	addr, log := startOpenSMTPD(t)
	d := plainDialer(addr)
	d.Overlap = OverlapOn
	envelopes := mixedEnvelopes(t, testrun.InFull(200, 50), 8)
	for _, e := range envelopes {
		for i := range e.Recipients { // it knows no temporary refusals by name
			e.Recipients[i].Mailbox = strings.Replace(e.Recipients[i].Mailbox, "later", "never", 1)
		}
	}
	results := sendAll(t, d, envelopes, 3)
	compare(t, envelopes, results, logged(t, log, opensmtpdReceived, countAccepted(results)))
	underTheirSender(t, log, opensmtpdSender)
}
