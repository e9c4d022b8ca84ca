package smtp

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"bulkmail/testdata/testrun"
)

// What smtp-sink dumps of each message it took.
var sinkTook = regexp.MustCompile(`(?m)^X-Rcpt-Args: (<[^>]+>)`)

// TestSMTPSink plays the failure modes of Postfix' smtp-sink.
func TestSMTPSink(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		args   []string
		lmtp   bool
		want   Status
		mbs    string // of the error, if there must be one
		unwell bool
	}{
		{name: "willing", want: Accepted},
		{name: "without PIPELINING", args: []string{"-p"}, want: Accepted},
		{name: "HELO only", args: []string{"-e"}, want: Accepted},
		{name: "LMTP", args: []string{"-L"}, lmtp: true, want: Accepted},
		{name: "slow at DATA", args: []string{"-w", "1"}, want: Accepted},
		// With PIPELINING the sink answers out of order when it is told to wait.
		{name: "slow at RCPT, now and then", args: []string{"-p", "-W", "RCPT:1:5"}, want: Accepted},
		{name: "MAIL refused", args: []string{"-f", "MAIL", "-B", "550 5.7.1 no"}, want: Rejected},
		{name: "RCPT refused", args: []string{"-f", "RCPT"}, want: Rejected},
		{name: "DATA refused", args: []string{"-f", "DATA", "-B", "550 5.7.1 no"}, want: Rejected},
		{name: "message refused", args: []string{"-f", ".", "-B", "550 5.7.1 no"}, want: Rejected},
		{name: "MAIL unknown", args: []string{"-f", "MAIL"}, want: NotAttempted, mbs: "MBS008", unwell: true},
		{name: "MAIL deferred", args: []string{"-r", "MAIL"}, want: Deferred},
		{name: "RCPT deferred", args: []string{"-r", "RCPT"}, want: Deferred},
		{name: "DATA deferred", args: []string{"-r", "DATA"}, want: Deferred},
		{name: "message deferred", args: []string{"-r", "."}, want: Deferred},
		{name: "closes at MAIL", args: []string{"-q", "MAIL"}, want: NotAttempted, mbs: "MBS009", unwell: true},
		{name: "closes at RCPT", args: []string{"-q", "RCPT"}, want: NotAttempted, mbs: "MBS009", unwell: true},
		{name: "closes at DATA", args: []string{"-q", "DATA"}, want: NotAttempted, mbs: "MBS009", unwell: true},
		{name: "closes at the dot", args: []string{"-q", "."}, want: InDoubt, mbs: "MBS009", unwell: true},
		{name: "421 at MAIL", args: []string{"-Q", "MAIL"}, want: NotAttempted, mbs: "MBS009", unwell: true},
		{name: "421 at RCPT", args: []string{"-Q", "RCPT"}, want: NotAttempted, mbs: "MBS009", unwell: true},
		{name: "421 at DATA", args: []string{"-Q", "DATA"}, want: NotAttempted, mbs: "MBS009", unwell: true},
		{name: "421 at the dot", args: []string{"-Q", "."}, want: NotAttempted, mbs: "MBS009", unwell: true},
		{name: "aborts the message", args: []string{"-A", "1"}, want: Rejected},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			peerProgram(t, "smtp-sink")
			dir := peerFolder(t)
			if err := os.Chmod(dir, 0o777); err != nil {
				t.Fatal(err)
			}
			// The dumps lie where the sink was told to change to.
			addr := startSink(t, append(c.args, "-R", dir, "-d", "%M.")...)
			d := plainDialer(addr)
			d.LMTP = c.lmtp
			d.Overlap = OverlapOn
			d.Timeout = 20 * time.Second
			envelopes := mixedEnvelopes(t, testrun.InFull(5, 2), 40)
			wanted := 0
			for i, e := range envelopes {
				s, err := d.Dial(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				err = s.Send(t.Context(), e, nil)
				_ = s.Close()
				if got, _ := errors.AsType[*Error](err); c.mbs == "" && err != nil || c.mbs != "" && (got == nil || got.MBS != c.mbs || got.Unwell != c.unwell) {
					t.Errorf("envelope %d: %v", i, err)
				}
				for r := range e.Results {
					if e.Results[r].Status != c.want {
						t.Errorf("%s: %+v %v, want %d", e.Recipients[r].Mailbox, e.Results[r], e.Results[r].Reply, c.want)
					}
				}
				if c.want == Accepted {
					wanted += len(e.Recipients)
				}
			}
			took := 0
			files, err := filepath.Glob(dir + "/*")
			if err != nil {
				t.Fatal(err)
			}
			for _, file := range files {
				b, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				took += len(sinkTook.FindAll(b, -1))
			}
			if took != wanted && c.want == Accepted {
				t.Errorf("the sink took %d recipients, %d were accepted", took, wanted)
			}
		})
	}
}

// A few hundred envelopes over several sessions, each way.
func TestSMTPSinkInALongRun(t *testing.T) {
	t.Parallel()
	peerProgram(t, "smtp-sink")
	addr := startSink(t)
	for _, overlap := range []Overlap{OverlapOff, OverlapOn, OverlapAuto} {
		d := plainDialer(addr)
		d.Overlap = overlap
		envelopes := mixedEnvelopes(t, testrun.InFull(300, 100), 30)
		results := sendAll(t, d, envelopes, 4)
		total := 0
		for _, e := range envelopes {
			total += len(e.Recipients)
		}
		if countAccepted(results) != total {
			t.Errorf("%d of %d accepted", countAccepted(results), total)
		}
	}
}
