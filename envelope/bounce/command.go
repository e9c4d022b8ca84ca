package bounce

import "strings"

// marks are what servers write of the command that was refused, in lower case.
var marks = [...]struct {
	command Command
	words   []string
}{
	{CommandRcpt, []string{
		"in reply to rcpt to", "after rcpt command", "after rcpt to", "after pipelined rcpt", "our rcpt to", "[rcpt_to]", "in rcpt to", ">>> rcpt to",
		"does not like recipient", "command: rcpt", "stage: rcpt", "response to rcpt", "rcpt to:<", "recipient command", "to rcpt command",
	}},
	{CommandMail, []string{
		"in reply to mail from", "after mail command", "after mail from", "after pipelined mail from", "our mail from", "[mail_from]", "in mail from", ">>> mail from",
		"sender was rejected", "response to mail", "sender command", "to mail command",
	}},
	{CommandData, []string{
		"in reply to end of data", "after data command", "after transfer of mail text", "in reply to data", "after data", "after end of data", "after pipelined data", "after pipelined end of data", "our final data", "our data", "[data]", "[end_of_data]", "[bodysent]", ">>> data", ">>> .",
		"failed on data command", "failed after i sent the message", "response to data", "response to end of data", "to data command",
	}},
	{CommandConnect, []string{
		"in reply to ehlo", "in reply to helo", "in reply to starttls", "after initial connection", "after ehlo", "after helo", "refused to talk to me", "my name was rejected",
		"[connect]", "[initial]", "[helo]", "our ehlo", "our helo", ">>> ehlo", ">>> helo", "while performing the ehlo", "failed to greet",
	}},
}

// findCommand returns the command that a text says was refused: the first that is
// named in it.
func findCommand(text string) Command {
	text = strings.ToLower(strings.Join(strings.Fields(text[:min(len(text), 4*maxText)]), " "))
	first, command := len(text), CommandUnknown
	for _, m := range marks {
		for _, words := range m.words {
			if i := strings.Index(text, words); i >= 0 && i < first {
				first, command = i, m.command
			}
		}
	}
	return command
}
