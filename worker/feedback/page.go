package feedback

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"html/template"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// A step is what a page is about.
type step int

const (
	asked step = iota // whether to unsubscribe
	done              // it is done
	later             // it could not be done
)

// words are those of a page in one language.
type words struct {
	Lang, Title, Question, Button, Done, Later string
}

// languages are those that a page is shown in; the first one where nobody asks for
// another.
var languages = [...]words{
	{"en", "Unsubscribe", "Do you want to get no more of these letters?", "Unsubscribe", "You are unsubscribed.", "This could not be done. Please try again in a minute."},
	{"de", "Abbestellen", "Möchten Sie diese Briefe nicht mehr bekommen?", "Abbestellen", "Sie sind abgemeldet.", "Das ging gerade nicht. Bitte versuchen Sie es in einer Minute noch einmal."},
	{"fr", "Se désabonner", "Souhaitez-vous ne plus recevoir ces messages ?", "Se désabonner", "Vous êtes désabonné.", "Cela n’a pas fonctionné. Veuillez réessayer dans une minute."},
	{"es", "Darse de baja", "¿Quiere dejar de recibir estos mensajes?", "Darse de baja", "Se ha dado de baja.", "No se ha podido hacer. Inténtelo de nuevo en un minuto."},
	{"it", "Annulla iscrizione", "Non vuole più ricevere questi messaggi?", "Annulla iscrizione", "L’iscrizione è stata annullata.", "Qualcosa non ha funzionato. Riprovi tra un minuto."},
	{"nl", "Afmelden", "Wilt u deze berichten niet meer ontvangen?", "Afmelden", "U bent afgemeld.", "Dit is niet gelukt. Probeer het over een minuut opnieuw."},
	{"pt", "Cancelar inscrição", "Quer deixar de receber estas mensagens?", "Cancelar inscrição", "A sua inscrição foi cancelada.", "Não foi possível. Tente de novo dentro de um minuto."},
	{"pl", "Wypisz się", "Czy nie chcesz już otrzymywać tych wiadomości?", "Wypisz się", "Wypisano.", "Nie udało się. Spróbuj ponownie za minutę."},
}

const pageStyle = `:root{color-scheme:light dark}body{font:1.1rem/1.5 system-ui,sans-serif;max-width:32rem;margin:15vh auto;padding:0 1rem}button{font:inherit;padding:.6rem 1.4rem}`

// The form posts to the address of the page.
var page = template.Must(template.New("page").Parse(`<!DOCTYPE html>
<html lang="{{.Lang}}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<title>{{.Title}}</title>
<style>{{.Style}}</style>
</head>
<body>
<main>
<h1>{{.Title}}</h1>
<p>{{.Says}}</p>
{{if .Asks}}<form method="post">
<input type="hidden" name="List-Unsubscribe" value="One-Click">
<button type="submit">{{.Button}}</button>
</form>
{{end}}</main>
</body>
</html>
`))

var pagePolicy = func() string {
	sum := sha256.Sum256([]byte(pageStyle))
	return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
}()

// writePage answers with a page in the reader's language.
func writePage(w http.ResponseWriter, status int, r *http.Request, about step) {
	said := struct {
		words
		Says  string
		Asks  bool
		Style template.CSS
	}{words: languageOf(r.Header.Get("Accept-Language")), Asks: about == asked, Style: pageStyle}
	said.Says = [...]string{asked: said.Question, done: said.Done, later: said.Later}[about]
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Language", said.Lang)
	w.Header().Set("Vary", "Accept-Language")
	w.WriteHeader(status)
	_ = page.Execute(w, said) // the reader has gone
}

// languageOf is the first language that we have of those in Accept-Language (RFC
// 9110 12.5.4).
func languageOf(accept string) words {
	type wish struct {
		lang   string
		weight float64
	}
	var wishes []wish
	for one := range strings.SplitSeq(accept[:min(len(accept), 1000)], ",") {
		lang, rest, _ := strings.Cut(one, ";")
		lang, _, _ = strings.Cut(strings.ToLower(strings.TrimSpace(lang)), "-")
		weight := 1.0
		if q, ok := strings.CutPrefix(strings.TrimSpace(rest), "q="); ok {
			weight, _ = strconv.ParseFloat(q, 64) // what is no number weighs nothing
		}
		if weight > 0 {
			wishes = append(wishes, wish{lang, weight})
		}
	}
	slices.SortStableFunc(wishes, func(a, b wish) int { return cmp.Compare(b.weight, a.weight) })
	for _, wish := range wishes {
		for _, words := range languages {
			if words.Lang == wish.lang {
				return words
			}
		}
	}
	return languages[0]
}
