package letter

import (
	"bytes"
	"strings"
)

// dateLayout is RFC 5322 3.3.
const dateLayout = "Mon, 02 Jan 2006 15:04:05 -0700"

// writeAdded writes the fields that the message lacks.
func (r *Renderer) writeAdded() {
	t, b := r.template, r.batch
	if !t.has["date"] && !b.Date.IsZero() {
		r.out = append(r.out, "Date: "...)
		r.out = b.Date.UTC().AppendFormat(r.out, dateLayout)
		r.out = append(r.out, '\r', '\n')
	}
	if !t.has["message-id"] && len(r.messageID) > 0 {
		r.out = append(r.out, "Message-ID: <"...)
		r.out = append(append(r.out, r.messageID...), ">\r\n"...)
	}
	if !t.has["mime-version"] {
		r.out = append(r.out, "MIME-Version: 1.0\r\n"...)
	}
	if t.options.Constant || len(r.unsubscribeURL) == 0 {
		return
	}
	if b.List != "" && !t.has["list-id"] {
		r.out = append(append(r.out, "List-Id: <"...), b.List...)
		if r.domain != "" {
			r.out = append(append(r.out, '.'), r.domain...)
		}
		r.out = append(r.out, ">\r\n"...)
	}
	if b.Transactional {
		return
	}
	if !t.has["list-unsubscribe"] {
		r.out = append(append(r.out, "List-Unsubscribe: <"...), r.unsubscribeURL...)
		r.out = append(r.out, '>')
		if b.UnsubscribeMailto != "" {
			// Its subject tells who it was, as the URL does.
			r.out = append(r.out, ",\r\n <mailto:"...)
			r.out = append(r.out, mailtoAddress(b.UnsubscribeMailto)...)
			r.out = append(r.out, "?subject="...)
			r.out = append(r.out, r.unsubscribeURL[bytes.LastIndexByte(r.unsubscribeURL, '/')+1:]...)
			r.out = append(r.out, '>')
		}
		r.out = append(r.out, '\r', '\n')
	}
	// RFC 8058 3.1: there has to be an HTTPS URI.
	if !t.has["list-unsubscribe-post"] && (!t.has["list-unsubscribe"] || t.oneClick) {
		r.out = append(r.out, "List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"...)
	}
}

// mailtoAddress escapes what has a meaning in a mailto URI (RFC 6068 2).
func mailtoAddress(s string) string {
	return strings.NewReplacer("%", "%25", "?", "%3F", "&", "%26", "#", "%23", "<", "%3C", ">", "%3E", `"`, "%22", " ", "%20", "/", "%2F").Replace(s)
}
