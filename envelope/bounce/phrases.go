package bounce

// sureness is what a rule needs beside its words.
type sureness uint8

const (
	always    sureness = iota
	ifNamed            // see unknownUser
	ifFree             // see unavailable
	ifNoOther          // if the status says no more
)

// rule is a reason with words that give it away.
type rule struct {
	reason  Reason
	sure    sureness
	phrases []string
}

// rules are tried in this order, the first that fits decides. What is said of the
// sender, the relay or the message comes before what is said of the recipient,
// because it often borrows its words: "sender address rejected: user unknown".
var rules = [...]rule{
	{Policy, always, []string{ // the sender's address
		"sender address rejected", "sender rejected", "sender is rejected", "sender denied", "sender not allowed",
		"sender address has been rejected", "sender address is", "domain of sender", "sender domain", "sender's domain",
		"sender verify failed", "sender verification", "invalid sender", "unknown sender", "bad sender", "sender unknown",
		"verify sender", "address of sender", "from address", "mail from address", "envelope sender", "your domain", "return path",
		"sender has no", "sender does not", "sender email", "sending domain does not exist", "expéditeur", "for sender", "not accept mail from", "not accept email from", "t accept mail from", "sender's address",
	}},
	{Policy, always, []string{ // a group that may not exist, or that one may not write to
		"google groups", "may not exist, or you may not have permission", "not a member", "recipient preferences", "email preferences of the person",
	}},
	{Policy, always, []string{ // relaying
		"relay access denied", "relaying denied", "relay denied", "relaying not allowed", "relaying is not", "relaying prohibited",
		"unable to relay", "cannot relay", "not relay", "relay not permitted", "no relaying", "to relay mail", "relay prohibited",
		"not permitted to relay", "relay operation rejected", "insecure mail relay", "not a gateway", "relayed mail",
		"isn't in my list of allowed rcpthosts", "not in my list of allowed", "we do not relay",
	}},
	{Authentication, always, []string{
		"dmarc", "dkim", " spf ", "spf record", "spf check", "spf:", "(spf", "spf fail", "sender policy framework", "unauthenticated",
		"authentication check", "authentication required", "authentication failed", "authentication is required", "authenticate",
		"domainkeys", "sender id", "senderid", "arc validation",
	}},
	{TooLarge, always, []string{
		"message size", "message too large", "message too big", "message is too large", "message is too big", "mail too large",
		"maximum message", "message length exceeds", "message exceeds", "exceeds size limit", "size limit exceeded",
		"exceeded maximum size", "exceeds the maximum", "exceeds maximum", "size exceed", "line limit exceeded", "too large",
		"message larger than", "message file too big", "too big for", "larger than the current",
	}},
	{MailboxFull, always, []string{
		"mailbox full", "mailbox is full", "mailbox over", "mail box full", "mailfolder is full", "inbox is full", "inbox full",
		"over quota", "overquota", "out of quota", "over the allowed quota", "over its quota", "quota exceeded", "exceeded quota",
		"exceed quota", "exceeds quota", "exceeded the quota", "quota full", "disk quota", "over disk quota", "mail quota",
		"quota has been", "quota is full", "user quota", "its quota", "her quota", "their quota", "his quota", "quota exceed",
		"not enough disk space", "not enough storage", "exceeded storage", "exceeds storage", "exceeded its storage",
		"storage allocation", "storage quota", "storage limit", "storage space", "insufficient disk", "no space left",
		"disk full", "disk is full", "disk space", "mailbox size limit", "mailbox limit", "mailbox exceed", "mailbox has exceed",
		"account is full", "account full", "account is over", "is over-quota", "mailbox quota", "maildir over", "maildir delivery failed: user",
		"too much mail data", "too many messages on this mailbox", "too many messages in", "too full", "user is full", "boite pleine", "boîte pleine", "quota dépassé",
		"full mailbox", "quotaexceeded", "mbox full", "mailbox space",
	}},
	{Rate, always, []string{
		"too many connection", "too many concurrent", "too many message", "too many recipients", "too many errors", "too many mails",
		"too many emails", "too many sessions", "too many hops from", "too fast", "rate limit", "ratelimit", "rate-limit", "throttl",
		"receiving mail at a rate", "at a rate that", "sending limit", "message limit", "hourly limit", "daily limit", "limit on the number of",
		"exceeded the maximum number", "connection limit", "connections limit", "maximum number of connections", "limit exceeded for",
		"greylist", "graylist", "greylisted", "grey-listed", "unexpected volume", "try again later, too", "slow down", "unusual rate",
		"frequency limit", "recipient limit", "excessive volume", "sent too",
	}},
	{Blocked, always, []string{
		"blacklist", "black list", "blocklist", "block list", "blocked using", "blocked by rbl", "blocked by ip", "rbl ", " rbl", "dnsbl",
		"spamhaus", "spamcop", "sorbs", "barracudacentral", "barracuda reputation", "senderbase", "reputation", "client host rejected", "client host blocked",
		"host rejected", "helo command rejected", "reverse dns", "rdns", "reverse lookup", "ptr record", "ptr ", "no ptr",
		"reverse mapping", "reverse host", "ip address has been", "ip has been", "ip is blocked", "your ip", "ip blocked", "bad ip",
		"invalid ip", "ip address is", "ip name", "your host", "your server", "your network", "open relay", "open proxy", "dynamic ip", "dialup",
		"dial-up", "dynamic address", "generic reverse", "mail server rejected", "mail from your", "messages from", "mail from host",
		"connection refused by policy", "connection rejected", "connection dropped", "refused to talk to me", "not welcome", "banned",
		"bad helo", "invalid helo", "helo name", "my name was rejected", "invalid domain name", "unsolicited mail originating", "poor reputation",
		"temporarily blocked", "currently blocked", "has been blocked from", "blocked - see", "on our block", "in our block", "access from ip", "no access from",
	}},
	{Other, always, []string{ // the delivery program failed
		"procmail:", "couldn't create", "could not create", "can't create", "cannot create", "command died", "pipe to |", "local configuration error",
		"mail loop", "mail forwarding loop", "routing loop", "too many hops", "hop count", "loops back to myself", "maximum allowed times",
	}},
	{Content, always, []string{
		"spam", "virus", "malware", "phish", "junk", "message content", "content reject", "content filter", "rejected for content", "unsolicited", "message was blocked because",
		"message contains", "attachment", "banned content", "headers too", "header too", "media error", "message rejected due to content",
		"suspicious", "surbl", "uribl", "considered unwanted", "bulk mail", "bulk email", "message scored", "blocked url", "malicious", "infected",
		"message filtered", "message identified", "message looks like", "unacceptable content", "prohibited content",
	}},
	{Suspended, always, []string{
		"suspended", "account disabled", "user disabled", "is disabled", "been disabled", "mailbox disabled", "recipient disabled", "disabled user",
		"address disabled", "disabled account", "account inactive", "user inactive", "is inactive", "inactive user", "inactive recipient",
		"inactive account", "inactive mailbox", "inactive email", "mailbox inactive", "is not active", "not activated", "account has been locked",
		"account is locked", "account locked", "user locked", "locked account", "mailbox locked", "mailbox is locked", "user is locked", "deactivated", "account expired",
		"account has expired", "account closed", "account is closed", "been closed", "account terminated", "account has been terminated", "discontinued", "mailbox currently suspended", "mailbox frozen",
		"account is frozen", "user mailbox is inactive", "temporarily disabled", "permanently disabled", "domain is not active", "billing reasons", "overdue", "out of the office permanently",
	}},
	{Moved, always, []string{
		"user has moved", "has moved", "recipient has moved", "not our customer", "no longer our customer", "address has changed",
		"changed address", "address changed", "user not local", "has been replaced by", "mailbox moved",
	}},
	{UnknownHost, always, []string{
		"host unknown", "unknown host", "host not found", "domain not found", "domain name not found", "domain does not exist", "domain not exist", "domain no longer", "no such domain", "no such host", "unknown domain", "domain unknown", "nxdomain", "host name is unknown",
		"unrouteable", "unroutable", "unrouteable mail domain", "non-existent host", "couldn't find any host", "couldn't find a mail exchanger", "couldn't find any", "no mail exchanger", "no mx", "illegal host", "illegal domain",
		"does not accept mail", "does not accept email", "doesn't accept mail", "no smtp service", "null mx", "nullmx", "bad destination system", "name or service not known", "name service error", "domain doesn't", "domain name could not", "domain isn't", "dns lookup failed", "dns lookup failure: host",
		"this domain is not hosted", "domain couldn't be found", "domain could not be found", "domain must resolve", "no a record", "bad domain", "does not receive mail", "hostname couldn't", "all relevant mx records",
	}},
	{UnknownUser, always, []string{
		"no such user", "no such mailbox", "no such recipient", "no such address", "no such account", "no such local user", "no such person", "no such email", "no such mail", "no such alias", "no such object", "no such name",
		"no mailbox here", "no mailbox by that name", "no mailbox with", "no valid recipient", "no known user", "not a known user", "not known at", "not known here", "not our user",
		"mailbox does not exist", "mailbox doesn't exist", "mailbox not found", "mailbox unknown", "unknown mailbox", "mailbox invalid", "invalid mailbox", "mailbox not exist", "mailbox lookup failed",
		"user does not exist", "user doesn't exist", "user not found", "user not exist", "user not known", "user is unknown", "user invalid", "invalid user", "user doesn't have", "does not have an account", "doesn't have a ",
		"unknown or illegal user", "unknown or invalid", "unknown local", "unknown address:", "unknown account", "unknown recipient", "unknown virtual", "unknown email",
		"recipient unknown", "recipient not found", "recipient does not exist", "recipient doesn't exist", "recipient not exist", "recipient not known", "recipient invalid", "recipient is invalid", "recipient is unknown", "recipient no longer", "recipient not here", "recipients unknown",
		"recipientnotfound", "recipnotfound", "recipient was not found", "recipient name is not recognized", "recipient is not on", "recipient not on", "recipient not listed", "recipient is not exist",
		"invalid recipient", "invalid email", "invalid account", "invalid local", "bad recipient", "bad address", "bad destination mailbox", "bad mailbox", "illegal user",
		"address unknown", "address does not exist", "address doesn't exist", "address not found", "address not exist", "address rejected: undeliverable", "address is unknown", "address invalid", "address is invalid", "address couldn't be found", "address wasn't found", "address not known", "address not present", "address could not be found",
		"account does not exist", "account doesn't exist", "account not found", "account is unavailable", "account not available", "account that you tried to reach does not exist", "account unknown", "account deleted", "account has been deleted", "account was deleted", "email account does not",
		"addressee unknown", "is not a valid mailbox", "not a valid user", "not a valid mailbox", "not a valid recipient", "not a valid address", "not found in directory", "not listed in", "not in directory", "not in domino directory", "wasn't found at", "was not found at", "is unknown to",
		"recipient address rejected: access denied", "recipient addresses rejected: access denied", "access denied. as(201806281)", "could not be located", "undeliverable address", "undeliverable mail address", "not a mailbox", "unknown or illegal", "unknown user: ", "invalid final delivery userid", "8+$d$+$j$^$;$s", "見つかりません", "存在しません", "user no longer", "no longer on server", "no longer in use", "no longer valid", "no account by", "no account with", "no user by", "no longer available", "no longer with",
		"destinataire invalide", "destinataire inconnu", "utilisateur inconnu", "adresse inconnue", "benutzer unbekannt", "empfänger unbekannt", "unbekannter empf", "usuario desconocido", "usuario no existe", "no existe", "non esiste", "utente sconosciuto", "inesistente", "użytkownik nie istnieje", "nie istnieje", "nie ma takiego", "inconnu", "inconnue", "desconocid", "desconhecid", "inexistente", "unbekannt", "nicht bekannt", "existiert nicht", "existe pas",
		"(and other recipients in the same domain)", "delivery error: dd this user", "deleted mailbox", "email address could not be found", "email not found", "ofr_416", "lpn007_416", "non-existent", "nonexist", "nonexistent", "inexistant",
		"resolver.adr", "exsmtpunknown", "unknown_user", "nosuchuser", "no.such.user", "invalid.user", "relay.recipient.unknown",
	}},
	{Policy, ifNamed, []string{"user unknown", "unknown user", "unknownuser", "userunknown"}},
	{UnknownUser, ifFree, []string{"mailbox unavailable", "mailbox not available", "mailbox is not available", "does not exist", "doesn't exist", "not exist", "no longer exist", "invalid address", "mailbox name not allowed", "unavailable mailbox"}},
	{Network, ifNoOther, []string{
		"timed out", "time out", "timeout", "connection refused", "connection reset", "connection lost", "lost connection", "connection failed", "no route to host", "network is unreachable", "network unreachable", "host is down", "conversation with", "unable to connect", "could not connect", "couldn't connect", "cannot connect", "failed to connect", "connect to",
		"establish an smtp connection", "retry time", "retry timeout", "retries, giving up", "not responding", "no response", "lookup failure", "in the queue too long", "queue too long", "delivery time expired", "message expired", "has expired", "too old", "unreachable", "did not accept our requests", "delivery attempts", "could not be delivered for", "name server", "starttls", "tls ", "certificate", "service unavailable", "service not available", "service currently unavailable",
	}},
	{Policy, ifNoOther, []string{
		"policy", "policies", "access denied", "not allowed", "not permitted", "administrative", "prohibit", "refused", "rejected", "denied", "not authorized", "not authorised", "unauthorized", "restricted", "not accepted", "filter", "complaint", "permission", "forbidden", "not accept", "blocked", "requires", "transaction failed", "security",
	}},
}
