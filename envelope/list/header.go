package list

import (
	"strings"
	"unicode"
)

// Ranks of a column's name, the best first.
const (
	named     = iota + 1 // it says address, in one language or the other
	recipient            // it says who gets something
	to
	mentioned // it says it among other things: "Work Email", "E-mail 2 Address"
	unnamed
)

// addressNames are names of the column of addresses, as [plain] writes them.
var addressNames = map[string]int{
	"email": named, "emails": named, "mail": named, "emailaddress": named, "emailaddresses": named, "mailaddress": named,
	"emailaddr": named, "emailid": named, "useremail": named, "subscriberemail": named, "customeremail": named, "contactemail": named,
	"primaryemail": named, "primaryemailaddress": named, "email1": named, "email1value": named, "email1address": named,
	"emailaddress1": named, "electronicmailaddress": named,
	"emailadresse": named, "mailadresse": named, "elektronischeadresse": named, "emailadressen": named, // German, Danish, Norwegian
	"adresseemail": named, "adressemail": named, "courriel": named, "adressecourriel": named, "adressedecourriel": named, // French
	"adressedemessagerie": named, "adresseélectronique": named, "mél": named, "emailpro": named,
	"correo": named, "correoelectrónico": named, "correoelectronico": named, "direccióndecorreoelectrónico": named, // Spanish
	"direcciondecorreoelectronico": named, "direccióndecorreo": named, "direccióndeemail": named,
	"endereçodeemail": named, "enderecodeemail": named, "endereçodecorreioeletrônico": named, "endereçodecorreioeletrónico": named, // Portuguese
	"indirizzoemail": named, "indirizzodipostaelettronica": named, "postaelettronica": named, "indirizzomail": named, // Italian
	"emailadres": named, "mailadres": named, // Dutch
	"epost": named, "epostadress": named, "epostadresse": named, "mejl": named, "mejladress": named, // Swedish, Norwegian
	"sähköposti": named, "sähköpostiosoite": named, // Finnish
	"adresemail": named, "adresmail": named, "adrespocztyelektronicznej": named, // Polish
	"emailováadresa": named, "emailcím": named, "eposta": named, "epostaadresi": named, // Czech, Hungarian, Turkish
	"электроннаяпочта": named, "адресэлектроннойпочты": named, "элпочта": named, "почта": named, "имейл": named,
	"メールアドレス": named, "メール": named, "eメール": named, "电子邮件": named, "电子邮箱": named, "邮箱": named, "电子邮件地址": named,
	"電子郵件": named, "電子郵件地址": named, "이메일": named, "이메일주소": named,

	"recipient": recipient, "recipients": recipient, "empfänger": recipient, "destinataire": recipient, "destinatario": recipient,
	"to": to,
}

// rankOf tells how well a name speaks for its column.
func rankOf(header string) int {
	if strings.ContainsAny(header, ";,|\t") {
		return unnamed // several names, of columns that something else separates
	}
	name := plain(header)
	if rank, ok := addressNames[name]; ok {
		return rank
	}
	// A sentence is a title. Other columns are about the address.
	if len(name) > 40 {
		return unnamed
	}
	for _, about := range []string{"name", "type", "label", "display", "status", "opt", "consent", "sent", "date", "count", "verified", "domain", "template", "subject"} {
		if strings.Contains(name, about) {
			return unnamed
		}
	}
	for _, stem := range []string{"email", "mailadr", "epost", "correo", "courriel", "messagerie", "sähköposti", "почт", "メール", "邮", "郵件", "이메일"} {
		if strings.Contains(name, stem) {
			return mentioned
		}
	}
	return unnamed
}

// plain is a name without what spellings differ in: "E-Mail Address" is
// "emailaddress".
func plain(header string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsDigit(r) || unicode.IsMark(r) {
			return unicode.ToLower(r)
		}
		return -1
	}, header)
}

// nameColumns are the columns that make a recipient's name: the one of the whole
// name, or those of its two halves.
func nameColumns(header []string) []int {
	first, last := -1, -1
	for i, h := range header {
		switch plain(h) {
		case "name", "fullname", "displayname", "recipientname", "contactname", "vollständigername", "nomcomplet", "nombrecompleto", "nomecompleto", "emaildisplayname":
			// A Nom beside a Prénom is half a name, a Name beside a Vorname too.
			if plain(h) == "name" && has(header, "vorname", "prénom", "prenom") {
				last = i
				continue
			}
			return []int{i}
		case "firstname", "givenname", "vorname", "prénom", "prenom", "nombre", "nome", "voornaam", "förnamn", "fornavn", "imię", "fname", "имя":
			first = i
		case "lastname", "familyname", "surname", "nachname", "nom", "nomdefamille", "apellidos", "apellido", "cognome", "sobrenome", "achternaam", "efternamn", "etternavn", "nazwisko", "lname", "фамилия":
			last = i
		}
	}
	var columns []int
	for _, i := range []int{first, last} {
		if i >= 0 {
			columns = append(columns, i)
		}
	}
	return columns
}

func has(header []string, names ...string) bool {
	for _, h := range header {
		for _, name := range names {
			if plain(h) == name {
				return true
			}
		}
	}
	return false
}
