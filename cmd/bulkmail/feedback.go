package main

import (
	"fmt"
	"os"
	"strconv"

	"github.com/spf13/cobra"

	"bulkmail/envelope/bounce"
)

func newFeedback(s *streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "feedback",
		Short:   "Read what comes back: bounces, complaints, automatic replies",
		Example: `  bulkmail feedback classify --json returned/*.eml`,
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
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
