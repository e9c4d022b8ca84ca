package bounce

import (
	"bytes"
	"strings"
)

// What is no report: see isAutoReply; and what is a bounce without one.

// autoSubjects begin the subjects of vacation notices.
var autoSubjects = [...]string{
	"out of office", "out of the office", "automatic reply", "auto reply", "auto-reply", "autoreply", "autoresponse", "auto response", "auto:", "vacation", "away from my mail", "on vacation", "on leave", "absence", "réponse automatique",
	"abwesenheit", "automatische antwort", "automatische beantwortung", "respuesta automática", "respuesta automatica", "risposta automatica", "resposta automática", "automatisch antwoord", "automatiskt svar", "automatisk svar", "автоответ", "自動応答", "自動返信", "不在", "自动回复",
}

// challengeSubjects begin the subjects of challenges: the mail waits until its
// sender proves to be a person.
var challengeSubjects = [...]string{
	"please confirm your message", "please confirm (conf#", "confirm your email to", "your message awaits", "please verify yourself", "sender verification", "message requires verification", "your email requires verification", "verification required", "please authenticate your e-mail", "[spamarrest]", "antispam uol",
}

// isAutoReply tells vacation notices and challenges by RFC 3834 and by what was
// before it. Bounces carry "Auto-Submitted: auto-replied" too, so that it counts
// only if a person seems to have sent the mail.
func (p *parsing) isAutoReply() bool {
	if p.header.has("x-failed-recipients") {
		return false
	}
	subject := p.subject()
	for _, list := range [...][]string{autoSubjects[:], challengeSubjects[:]} {
		for _, s := range list {
			if strings.HasPrefix(subject, s) || strings.HasPrefix(subject, "re: "+s) {
				return true
			}
		}
	}
	for _, name := range [...]string{"x-autoreply", "x-autorespond", "x-autoresponder", "x-auto-reply-from", "x-mail-autoreply", "x-vacation", "x-challenge", "x-tmda-fingerprint"} {
		if v := p.header.get(name); v != "" && !strings.EqualFold(v, "no") {
			return true
		}
	}
	if v := strings.ToLower(p.header.get("precedence")); v == "auto_reply" || v == "auto-reply" {
		return true
	}
	submitted := strings.ToLower(p.header.get("auto-submitted"))
	return strings.HasPrefix(submitted, "auto-replied") && !p.fromDaemon()
}

// daemons are local parts of who sends bounces.
var daemons = [...]string{
	"mailer-daemon", "mailerdaemon", "mailer_daemon", "postmaster", "post_master", "mail-daemon", "maildaemon", "mdaemon", "mail_daemon", "mailsystem", "mail-system", "bounce", "bounces", "noreply", "no-reply", "email-bounces",
}

// names are display names of who sends bounces.
var names = [...]string{"mail delivery", "mail deliver", "mail administrator", "system administrator", "mailer-daemon", "postmaster", "mail system", "delivery subsystem", "internet mail delivery", "content-filter", "mail server"}

func (p *parsing) fromDaemon() bool {
	from := strings.ToLower(p.header.get("from"))
	if strings.Trim(from, "<> ") == "" {
		return true
	}
	local, _, _ := strings.Cut(firstAddress(from), "@")
	if local == "" {
		local = strings.Trim(from, "<> ")
	}
	for _, d := range daemons {
		if strings.HasPrefix(local, d) {
			return true
		}
	}
	for _, n := range names {
		if strings.Contains(from, n) {
			return true
		}
	}
	return false
}

// fromNobody reports whether the envelope sender is null, as far as the mail tells.
func (p *parsing) fromNobody() bool {
	path := strings.ToLower(p.header.get("return-path"))
	return p.header.has("return-path") && (strings.Trim(path, "<> ") == "" || strings.Contains(path, "mailer-daemon") || path == "<null>")
}

var bounceSubjects = [...]string{
	"undeliver", "undelivered", "delivery status", "delivery failure", "delivery failed", "delivery notification", "delivery report", "delivery problem", "failure notice", "failure delivery", "failed delivery", "returned mail", "returned to sender", "returning message", "mail delivery", "mail system error",
	"mail failure", "delivery error", "non-delivery", "nondeliverable", "non delivery", "not delivered", "could not be delivered", "could not send", "message status", "message delayed", "delayed mail", "bounce", "unzustellbar", "non remis", "nicht zugestellt", "unable to deliver", "not deliver", "permanent delivery failure", "warning: could not send", "message you sent blocked", "user unknown", "недоставленное", "error", "failure", "notice: mail delivery", "rejected",
}

var bounceWords = [...]string{
	"could not be delivered", "couldn't be delivered", "cannot be delivered", "can't be delivered", "can not be delivered", "wasn't delivered", "was not delivered", "not be delivered", "not delivered", "unable to deliver", "unable to send", "able to deliver", "undeliverable", "undelivered", "non-deliverable", "delivery failed", "delivery failure", "delivery has failed",
	"failed to deliver", "failed to send", "did not reach", "returned to sender", "permanent fatal errors", "fatal errors", "transient non-fatal", "delivery problems", "delivery errors", "could not be sent", "transcript of session", "rejected your message", "was rejected", "error delivering", "error has occurred", "were rejected", "address(es) failed", "has been delayed",
	"recipients failed", "permanent error", "failure reasons", "error message below", "server message", "not relayed", "could not deliver", "couldn't deliver", "weren't able to", "unable to deliver", "did not receive this message", "could not be processed", "rejected by", "delivery to the following", "no such user", "may not exist", "user unknown", "transcript of the attempts", "automatically rejected", "not accepted", "could not send", "not able to send", "delivery error", "mailbox full", "mailbox is full", "status: 5.", "status: 4.",
}

// isBounce reports whether a mail without a delivery status is a bounce: it must
// look like one from without and from within, for people write about bounces too.
func (p *parsing) isBounce() bool {
	if p.header.has("x-failed-recipients") || p.header.has("x-bounced-address") {
		return true
	}
	if bytes.Contains(p.said, []byte("not a member of this mailing list")) {
		return true
	}
	subject := p.subject()
	if (strings.HasPrefix(subject, "re:") || strings.HasPrefix(subject, "aw:")) && !p.fromDaemon() {
		return false // somebody answers one
	}
	if !p.fromDaemon() && !p.fromNobody() && !hasAny(subject, bounceSubjects[:]) {
		return false
	}
	said := strings.ToLower(strings.Join(strings.Fields(string(p.said)), " "))
	return hasAny(said, bounceWords[:]) || statusWithin(p.text) != nil || hasAny(subject, bounceSubjects[:]) && (p.returned != nil || p.fromDaemon())
}

// isDelay reports whether a bounce without a delivery status says that the server
// goes on trying.
func (p *parsing) isDelay() bool {
	said := strings.ToLower(strings.Join(strings.Fields(string(p.said)+" "+p.subject()), " "))
	return hasAny(said, []string{"has been delayed", "warning message only", "this is a warning", "still being retried", "will be retried", "will keep trying", "will continue to", "notification (delay)", "not yet been delivered", "has not been delivered yet", "delayed mail", "message delayed", "no action is required on your part"})
}

// returnsBounce reports whether the returned message was a bounce itself, of
// which nothing of ours is told.
func (p *parsing) returnsBounce() bool {
	if !p.returned.has("return-path") {
		return false
	}
	path := strings.ToLower(p.returned.get("return-path"))
	return strings.Trim(path, "<> ") == ""
}

func hasAny(s string, words []string) bool {
	for _, w := range words {
		if strings.Contains(s, w) {
			return true
		}
	}
	return false
}
