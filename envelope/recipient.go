package envelope

// A Recipient is one recipient of a batch, from the batch as published to the
// envelope that carries it.
type Recipient struct {
	Address string  // as published; may be no address at all
	Mailbox string  // as said in RCPT TO: [Address.Mailbox]; empty until [Batch.Plan] has checked Address
	Letter  *Letter // what the recipient's own letter is made of; nil: published as a mere string
}

// A Letter is what a publisher says of one recipient in a batch of letters, all
// of whose recipients get a message of their own.
type Letter struct {
	Name string // of the person; may be empty
	Data string // a JSON object: the values of the template's variables; may be empty
}

// To makes recipients of mailboxes. It checks nothing: in a batch, Plan does.
func To(mailboxes ...string) []Recipient {
	list := make([]Recipient, len(mailboxes))
	for i, m := range mailboxes {
		list[i] = Recipient{Address: m, Mailbox: m}
	}
	return list
}

// DataBytes is how much data one recipient may have, as JSON, and the batch as a
// whole for all.
const DataBytes = 32 << 10
