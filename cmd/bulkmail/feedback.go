package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"

	"bulkmail/envelope/bounce"
	"bulkmail/envelope/returnpath"
	"bulkmail/worker/feedback"
)

func newFeedback(s *streams) *cobra.Command {
	var maildir, mbox string
	cmd := &cobra.Command{
		Use:   "feedback",
		Short: "Take what comes back: unsubscribes, bounces, complaints",
		Long: `Take what comes back after a relay has accepted a message.

Take unsubscribes on BULKMAIL_FEEDBACK_HTTP until SIGTERM or an interrupt. Any number
of these processes may run; each begins also while the broker is away.

The List-Unsubscribe of letters names BULKMAIL_UNSUBSCRIBE_URL, which must lead here.
POST as in RFC 8058 unsubscribes: from the campaign's list if it has one, else from
all bulk mail. GET shows a page with one button and changes nothing. The answer comes
when it is stored on the broker; while that is away it is 503, and senders try again.
The answer to a token that nobody made is the same.

It needs the keys that workers have: BULKMAIL_KEYS_FILE, which is read again when it
changes, or without one the key that they share on the broker. /healthz and /readyz are
for probes. With BULKMAIL_FEEDBACK_TLS_CERT and _KEY it speaks TLS itself.

With --maildir or --mbox it reads mail that came to BULKMAIL_RETURN_PATH, which
workers put into MAIL FROM, and ends. Bounces and complaints become events; whoever
complained or whose address is dead is suppressed for bulk mail, a mailbox that is
full or closed after it bounced in 3 campaigns within 14 days. What was refused for a
policy (5.7.x) suppresses nobody. Mail that is read again changes nothing. Mail in new
of a maildir is moved to cur when what it says is stored.`,
		Example: `  BULKMAIL_FEEDBACK_HTTP=127.0.0.1:8443 bulkmail feedback
  BULKMAIL_RETURN_PATH=b+{token}@bounces.example.com bulkmail feedback --maildir /var/mail/bounces
  bulkmail feedback classify --json returned/*.eml`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if maildir != "" || mbox != "" {
				return readReturned(cmd, s, maildir, mbox)
			}
			return runFeedback(cmd, s)
		},
	}
	cmd.Flags().StringVar(&maildir, "maildir", "", "read the mail in the maildir `DIR`, and end")
	cmd.Flags().StringVar(&mbox, "mbox", "", "read the mail in the mbox `FILE` (- is standard input), and end")
	cmd.MarkFlagsMutuallyExclusive("maildir", "mbox")
	var asJSON bool
	classify := &cobra.Command{
		Use: "classify FILE...", Short: "Print what returned mails say of each recipient", Args: cobra.MinimumNArgs(1), ValidArgsFunction: completeFiles,
		Long: `Print what mails that came back say of each recipient, without a broker.

Each FILE holds one mail, - is standard input. A line is printed for each
recipient: its kind (bounced, delayed, delivered, complained, unsubscribed),
whether the address is dead for good (hard), the reason, the enhanced status and
the code. A mail that is no report has the kind none, or auto_reply.`,
		Example: `  bulkmail feedback classify --json returned/*.eml
  bulkmail feedback classify - <bounce.eml`,
		RunE: func(_ *cobra.Command, args []string) error { return classifyFiles(s, args, asJSON) },
	}
	classify.Flags().BoolVar(&asJSON, "json", false, "print JSON, one object a line")
	cmd.AddCommand(classify)
	return cmd
}

func runFeedback(cmd *cobra.Command, s *streams) error {
	ctx := cmd.Context()
	c, names, err := loadConfig()
	if err != nil {
		return err
	}
	switch {
	case c.FeedbackHTTP == "":
		return usage(cmd, errors.New("BULKMAIL_FEEDBACK_HTTP is not set: say where to take unsubscribes, for example 127.0.0.1:8443"))
	case (c.FeedbackTLSCert == "") != (c.FeedbackTLSKey == ""):
		return usage(cmd, errors.New("BULKMAIL_FEEDBACK_TLS_CERT, BULKMAIL_FEEDBACK_TLS_KEY: set both or neither"))
	}
	log := newLogger(c, s.err)
	o := c.options(log)
	url := cmp.Or(c.NATSURL, defaultURL)
	nc, err := o.Dial(url, "feedback")
	if err != nil {
		return unreachable(url, err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	err = feedback.Run(ctx, js, names, feedback.Options{
		HTTP: c.FeedbackHTTP, TLSCert: c.FeedbackTLSCert, TLSKey: c.FeedbackTLSKey, KeysFile: c.KeysFile, Provide: o.Provision(), Log: log,
		Opened: func(addr string) {
			log.InfoContext(ctx, "taking unsubscribes", "addr", addr, "tls", c.FeedbackTLSCert != "")
		},
	})
	if failed, ok := errors.AsType[*feedback.Error](err); ok && failed.Part == "http" {
		return fmt.Errorf("BULKMAIL_FEEDBACK_HTTP, BULKMAIL_FEEDBACK_TLS_CERT: %w", failed.Err)
	}
	return err
}

// readReturned reads mail that lies somewhere.
func readReturned(cmd *cobra.Command, s *streams, maildir, mbox string) error {
	config, names, err := loadConfig()
	if err != nil {
		return err
	}
	if config.ReturnPath == "" {
		return usage(cmd, errors.New("BULKMAIL_RETURN_PATH is not set: set it as it is for the workers"))
	}
	path, err := returnpath.ParsePath(config.ReturnPath)
	if err != nil {
		return usage(cmd, fmt.Errorf("BULKMAIL_RETURN_PATH: %w", err))
	}
	config.NATSURL = cmp.Or(config.NATSURL, defaultURL)
	c, err := config.connectOnly(names, "feedback", newLogger(config, s.err))
	if err != nil {
		return err
	}
	defer c.nc.Close()
	mails, source := feedback.Maildir(maildir), "maildir"
	if mbox != "" {
		in := s.in
		if mbox != "-" {
			f, err := os.Open(mbox)
			if err != nil {
				return err
			}
			defer f.Close()
			in = f
		}
		mails, source = feedback.Mbox(in), "mbox"
	}
	o := feedback.Options{KeysFile: c.KeysFile, Provide: c.options(c.log).Provision(), Log: c.log}
	counts, err := feedback.Read(cmd.Context(), c.js, c.names, path, o, mails, source)
	total := 0
	for _, n := range counts {
		total += n
	}
	fmt.Fprintf(s.out, "%s: %s taken, %s to another address, %s no report, %s too old\n", count(total, "mail", "mails"),
		number(counts[feedback.Taken]), number(counts[feedback.NotOurs]), number(counts[feedback.NoReport]), number(counts[feedback.TooOld]))
	return err
}

// A classified is what a mail says of a recipient, as it is printed.
type classified struct {
	File      string        `json:"file"`
	Kind      bounce.Kind   `json:"kind"`
	Recipient string        `json:"recipient"`
	Hard      bool          `json:"hard"`
	Reason    bounce.Reason `json:"reason"`
	Enhanced  string        `json:"enhanced"`
	Code      int           `json:"code"`
}

func classifyFiles(s *streams, files []string, asJSON bool) error {
	t := newTable("file", "kind", "recipient", "hard", "reason", "enhanced", "code")
	lines := encoder(s.out, isTerminal(s.out))
	lines.SetEscapeHTML(false)
	for _, file := range files {
		report, err := readReport(s, file)
		if err != nil {
			return err
		}
		for _, r := range report.Recipients {
			c := classified{file, r.Kind, r.Address, r.Hard, r.Reason, r.Enhanced, r.Code}
			if !asJSON {
				t.row(c.File, string(c.Kind), c.Recipient, yesNo(c.Hard), string(c.Reason), c.Enhanced, codeOf(c.Code))
				continue
			}
			if err := lines.Encode(c); err != nil {
				return fmt.Errorf("standard output: %w", err)
			}
		}
	}
	if asJSON {
		return nil
	}
	return t.print(s.out)
}

func readReport(s *streams, file string) (bounce.Report, error) {
	if file == "-" {
		report, err := bounce.Read(s.in)
		if err != nil {
			return report, fmt.Errorf("standard input: %w", err)
		}
		return report, nil
	}
	f, err := os.Open(file)
	if err != nil {
		return bounce.Report{}, err
	}
	defer f.Close()
	report, err := bounce.Read(f)
	if err != nil {
		return report, fmt.Errorf("%s: %w", file, err)
	}
	return report, nil
}

func yesNo(yes bool) string {
	if yes {
		return "yes"
	}
	return "no"
}

func codeOf(code int) string {
	if code == 0 {
		return ""
	}
	return strconv.Itoa(code)
}
