package smtp

import (
	"net"
	"os"
	"regexp"
	"strings"
	"testing"

	"bulkmail/testdata/testrun"
)

const eximConfig = `
primary_hostname = mx.test
spool_directory = DIR/spool
log_file_path = DIR/log/%s
exim_user = Debian-exim
exim_group = Debian-exim
keep_environment =
daemon_smtp_ports = PORT
local_interfaces = 127.0.0.1
smtp_accept_max = 100
smtp_accept_max_per_connection = 40
smtp_accept_queue_per_connection = 0
recipients_max = 12
host_lookup =
queue_only
log_selector = +received_recipients
pipelining_advertise_hosts = PIPELINING
chunking_advertise_hosts = *
acl_smtp_rcpt = recipient
acl_smtp_data = data

begin acl
recipient:
  defer   local_parts = ^later
          message = later
  deny    local_parts = ^never
          message = never
  accept
data:
  accept

begin routers
nowhere:
  driver = accept
  transport = nowhere

begin transports
nowhere:
  driver = appendfile
  file = /dev/null
  user = Debian-exim
`

// Exim's log names the recipients of a message at the end of its line.
var eximReceived = regexp.MustCompile(`(?m) <= .* for ([^\n]+)$`)

var eximSender = regexp.MustCompile(`(?m) <= news\+(\d+)@.* for ([^\n]+)$`)

func startExim(t *testing.T, pipelining string) (addr, log string) {
	t.Helper()
	addr, dir := startEximAs(t, strings.Replace(eximConfig, "PIPELINING", pipelining, 1))
	return addr, dir + "/log/main"
}

func startEximAs(t *testing.T, config string) (addr, dir string) {
	t.Helper()
	exim := peerProgram(t, "exim4")
	dir = peerFolder(t)
	addr = freeAddr(t)
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	config = strings.NewReplacer("DIR", dir, "PORT", port).Replace(config)
	writeFile(t, dir+"/exim.conf", config)
	for _, folder := range []string{"/spool", "/log"} {
		if err := os.Mkdir(dir+folder, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := peerCommand("chown", "-R", "Debian-exim", dir+"/spool", dir+"/log").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	startPeer(t, addr, peerCommand(exim, "-C", dir+"/exim.conf", "-bdf"))
	return addr, dir
}

func TestExim(t *testing.T) {
	for _, c := range []struct {
		name       string
		pipelining string
		overlap    Overlap
	}{
		{"pipelined", "*", OverlapOff},
		{"overlapped", "*", OverlapOn},
		{"auto", "*", OverlapAuto},
		{"without PIPELINING", ":", OverlapOn},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			addr, log := startExim(t, c.pipelining)
			d := plainDialer(addr)
			d.Overlap = c.overlap
			envelopes := mixedEnvelopes(t, testrun.InFull(200, 50), 20)
			results := sendAll(t, d, envelopes, 3)
			compare(t, envelopes, results, logged(t, log, eximReceived, countAccepted(results)))
			underTheirSender(t, log, eximSender)
			if d.learnt.isRefused() {
				t.Error("Exim is said not to follow overlapped messages")
			}
		})
	}
}
