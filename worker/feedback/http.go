package feedback

import (
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"strings"
	"time"

	"bulkmail/envelope/keys"
	"bulkmail/subjects"
	"bulkmail/worker/suppress"
)

const (
	// bodyBytes is how much of a request is read; RFC 8058 needs 26 octets.
	bodyBytes = 16 << 10
	// tokenBytes is the longest token that is looked at: ids of 64 octets and an
	// address of 254 make one of some 640.
	tokenBytes = 1024
	// floor is how long the answer to a POST takes at least, so that it does not
	// tell whether anything was written.
	floor = 20 * time.Millisecond
	// retryAfter is what a sender is told who comes while the broker is away, in
	// seconds.
	retryAfter = "30"
)

// oneClick is what RFC 8058 3.2 has a POST say.
const oneClick, oneClickValue = "List-Unsubscribe", "One-Click"

// A handler answers whoever follows the address in List-Unsubscribe.
type handler struct {
	recorder *recorder
	ring     *ring
	rates    *rates
	log      *slog.Logger
}

func newHandler(r *recorder, k *ring, o Options) http.Handler {
	return &handler{recorder: r, ring: k, rates: newRates(cmp.Or(o.Rate, defaultRate)), log: o.Log}
}

// ServeHTTP takes any path for one that ends with a token. A mux would redirect some,
// which RFC 8058 forbids.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	probe := r.Method == http.MethodGet || r.Method == http.MethodHead
	switch {
	case probe && r.URL.Path == "/healthz":
		_, _ = io.WriteString(w, "alive\n") // whoever asks has gone
	case probe && r.URL.Path == "/readyz":
		if err := h.able(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		_, _ = io.WriteString(w, "ready\n")
	default:
		h.serve(w, r)
	}
}

// able tells whether an unsubscribe can be taken now.
func (h *handler) able() error {
	ring, err := h.ring.read()
	if err == nil && len(ring) == 0 {
		err = errAway // they are there
	}
	if err == nil {
		err = h.recorder.ready()
	}
	return err
}

func (h *handler) serve(w http.ResponseWriter, r *http.Request) {
	head := w.Header()
	head.Set("Cache-Control", "no-store")
	head.Set("Content-Security-Policy", pagePolicy)
	head.Set("Referrer-Policy", "no-referrer") // the address is the secret
	head.Set("X-Content-Type-Options", "nosniff")
	head.Set("X-Robots-Tag", "noindex, nofollow")
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		writePage(w, http.StatusOK, r, asked)
	case http.MethodPost:
		h.post(w, r)
	default:
		head.Set("Allow", "GET, HEAD, POST")
		http.Error(w, "POST unsubscribes, GET asks first", http.StatusMethodNotAllowed)
	}
}

// post unsubscribes. Whether the token is right shows in nothing.
func (h *handler) post(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	if !h.rates.allow(r.RemoteAddr, began) {
		w.Header().Set("Retry-After", "1")
		http.Error(w, "too many at once, try again", http.StatusTooManyRequests)
		return
	}
	if status, why := readOneClick(w, r); status != http.StatusOK {
		http.Error(w, why, status)
		return
	}
	err := h.unsubscribe(r)
	if rest := floor - time.Since(began); rest > 0 {
		select {
		case <-time.After(rest):
		case <-r.Context().Done():
		}
	}
	if err != nil {
		h.log.WarnContext(r.Context(), "unsubscribe not taken, who asked is told to try again", "error", err)
		w.Header().Set("Retry-After", retryAfter)
		writePage(w, http.StatusServiceUnavailable, r, later)
		return
	}
	writePage(w, http.StatusOK, r, done)
}

// readOneClick looks whether a POST is one of RFC 8058, in either of its forms.
func readOneClick(w http.ResponseWriter, r *http.Request) (status int, why string) {
	r.Body = http.MaxBytesReader(w, r.Body, bodyBytes)
	form, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	switch {
	case err == nil && form == "multipart/form-data":
		err = r.ParseMultipartForm(bodyBytes)
	case err == nil && form == "application/x-www-form-urlencoded":
		err = r.ParseForm()
	default:
		return http.StatusUnsupportedMediaType, "POST a form (RFC 8058)"
	}
	if _, long := errors.AsType[*http.MaxBytesError](err); long {
		return http.StatusRequestEntityTooLarge, "the form is too long"
	}
	if err != nil || r.PostForm.Get(oneClick) != oneClickValue {
		return http.StatusBadRequest, "POST List-Unsubscribe=One-Click (RFC 8058)"
	}
	return http.StatusOK, ""
}

// unsubscribe stores who does not want to be sent to; a token that nobody made costs
// as much.
func (h *handler) unsubscribe(r *http.Request) error {
	if err := h.able(); err != nil {
		return err
	}
	ring, err := h.ring.read()
	if err != nil {
		return err
	}
	s, ok := readToken(ring, r.URL.Path)
	if !ok {
		return h.recorder.ask(r.Context())
	}
	// Whoever asked may hang up: he is unsubscribed all the same.
	return h.recorder.store(context.WithoutCancel(r.Context()), unsubscribed(s, time.Now()))
}

// readToken finds what the end of a path stands for.
func readToken(ring keys.Keys, path string) (s keys.Subscription, ok bool) {
	token := path[strings.LastIndexByte(path, '/')+1:]
	if len(token) > tokenBytes {
		return s, false
	}
	if s, ok = ring.Read(token); !ok || !subjects.ValidID(s.Campaign) {
		return s, false
	}
	_, err := suppress.ParseName(s.Mailbox)
	return s, err == nil
}

// unsubscribed is what happens when somebody unsubscribes.
func unsubscribed(s keys.Subscription, now time.Time) occurrence {
	o := occurrence{
		FeedbackEvent: subjects.FeedbackEvent{
			ID:   eventID(subjects.Unsubscribed, s.Campaign, strings.ToLower(s.Mailbox)),
			Time: now.UTC().Truncate(time.Millisecond), Kind: subjects.Unsubscribed, Campaign: s.Campaign, Recipient: s.Mailbox, Source: "http",
		},
		scope: subjects.ScopeBulk, why: "unsubscribed", cause: "unsubscribe",
	}
	if subjects.ValidID(s.List) {
		o.scope = subjects.ScopeList + s.List
	}
	return o
}
