package list_test

import (
	"encoding/binary"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"bulkmail/envelope/list"
)

// What programs write: headers and quoting are theirs, the people are not.
func TestTheExportsOfProgramsAreLists(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		text, column string
		form         string
		want         []string
	}{
		"Excel, English": {
			text: "First Name,Last Name,Email Address\r\nAnn,Lee,ann@example.net\r\n\"Bob, Jr.\",\"O\"\"Neil\",bob@example.net\r\n",
			form: "CSV with commas, addresses in column 3 (Email Address)",
			want: []string{"2 ann@example.net (Ann Lee)", `3 bob@example.net (Bob, Jr. O"Neil)`},
		},
		"Excel, German, Windows-1252": {
			text: "Vorname;Name;E-Mail\r\nJ\xfcrgen;Gro\xdf;jg@example.net\r\nAnn;Lee;ann@example.net\r\n",
			form: "CSV with semicolons, addresses in column 3 (E-Mail), Windows-1252",
			want: []string{"2 jg@example.net (Jürgen Groß)", "3 ann@example.net (Ann Lee)"},
		},
		"Excel, French, CSV UTF-8": {
			text: "\ufeffPrénom;Nom;Adresse e-mail\r\nZoé;Lévy;zoe@example.net\r\n",
			form: "CSV with semicolons, addresses in column 3 (Adresse e-mail)",
			want: []string{"2 zoe@example.net (Zoé Lévy)"},
		},
		"Excel, Spanish": {
			text: "Nombre;Apellidos;Correo electr\xf3nico\r\nAna;L\xf3pez;ana@example.net\r\n",
			form: "CSV with semicolons, addresses in column 3 (Correo electrónico), Windows-1252",
			want: []string{"2 ana@example.net (Ana López)"},
		},
		"Excel, Unicode text": {
			text: wide("Name\tE-post\r\nÅsa\tasa@example.net\r\n", binary.LittleEndian, true),
			form: "CSV with tabs, addresses in column 2 (E-post), UTF-16",
			want: []string{"2 asa@example.net (Åsa)"},
		},
		"Excel, what separates said, title above": {
			text: "sep=;\r\nMitglieder 2026;;\r\n;;\r\nNr;Name;Mail\r\n1;Ann;ann@example.net\r\n2;Bob;\r\n",
			form: "CSV with semicolons, addresses in column 3 (Mail)",
			want: []string{"5 ann@example.net (Ann)"},
		},
		"LibreOffice, all text quoted": {
			text: "\"Name\",\"E-mail\",\"Note\"\n\"Ann\",\"ann@example.net\",\"two\nlines\"\n\"Bob\",\"bob@example.net\",\n",
			form: "CSV with commas, addresses in column 2 (E-mail)",
			want: []string{"2 ann@example.net (Ann)", "4 bob@example.net (Bob)"},
		},
		"Google contacts": {
			text: "First Name,Middle Name,Last Name,Organization Name,Labels,E-mail 1 - Label,E-mail 1 - Value,E-mail 2 - Label,E-mail 2 - Value\n" +
				"Ann,,Lee,,* myContacts,* Home,ann@example.net,Work,ann@example.org\n" +
				"Bob,,,X,* myContacts,,,,\n" +
				"Carl,,,,* myContacts,* ,carl@example.net ::: carl@example.org,,\n",
			form: "CSV with commas, addresses in column 7 (E-mail 1 - Value)",
			want: []string{"2 ann@example.net (Ann Lee)", "4 carl@example.net (Carl)", "4 carl@example.org (Carl)"},
		},
		"Google contacts, of before": {
			text: "Name,Given Name,Family Name,Group Membership,E-mail 1 - Type,E-mail 1 - Value\nAnn Lee,Ann,Lee,* My Contacts,* Home,ann@example.net\n",
			form: "CSV with commas, addresses in column 6 (E-mail 1 - Value)",
			want: []string{"2 ann@example.net (Ann Lee)"},
		},
		"Outlook contacts": {
			text: "First Name,Middle Name,Last Name,Company,E-mail Address,E-mail Type,E-mail Display Name,E-mail 2 Address\r\n" +
				"Ann,,Lee,X,ann@example.net,SMTP,Ann Lee (ann@example.net),ann@example.org\r\n",
			form: "CSV with commas, addresses in column 5 (E-mail Address)",
			want: []string{"2 ann@example.net (Ann Lee (ann@example.net))"},
		},
		"Outlook contacts, German": {
			text: "\"Anrede\",\"Vorname\",\"Nachname\",\"E-Mail-Adresse\",\"E-Mail-Typ\",\"E-Mail 2: Adresse\"\r\n\"\",\"Ann\",\"Lee\",\"ann@example.net\",\"SMTP\",\"\"\r\n",
			form: "CSV with commas, addresses in column 4 (E-Mail-Adresse)",
			want: []string{"2 ann@example.net (Ann Lee)"},
		},
		"Thunderbird": {
			text: "First Name,Last Name,Display Name,Nickname,Primary Email,Secondary Email\nAnn,Lee,Ann Lee,,ann@example.net,ann@example.org\n",
			form: "CSV with commas, addresses in column 5 (Primary Email)",
			want: []string{"2 ann@example.net (Ann Lee)"},
		},
		"Mailchimp": {
			text: "\"Email Address\",\"First Name\",\"Last Name\",\"MEMBER_RATING\",\"OPTIN_TIME\"\nann@example.net,Ann,Lee,2,\"2026-01-02 03:04:05\"\n",
			form: "CSV with commas, addresses in column 1 (Email Address)",
			want: []string{"2 ann@example.net (Ann Lee)"},
		},
		"a mail program's recipients": {
			text: "Ann Lee <ann@example.net>; 'Bob' <bob@example.net>;\n",
			form: "text",
			want: []string{"1 ann@example.net (Ann Lee)", "1 bob@example.net ('Bob')"},
		},
		"outcomes": {
			text: "campaign,batch,recipient,status,relay,code,enhanced,text,attempt,time\n" +
				"news,1,ann@example.net,rejected,a,550,5.1.1,\"<ann@example.net> unknown\",1,2026-01-02T03:04:05Z\n" +
				"news,1,'=cmd@example.net,rejected,a,550,5.1.1,'=x,1,2026-01-02T03:04:05Z\n",
			form: "CSV with commas, addresses in column 3 (recipient)",
			want: []string{"2 ann@example.net", "3 =cmd@example.net"},
		},
		"a database": {
			text: "id|user_email|created_at\n1|ann@example.net|2026-01-02\n",
			form: "CSV with bars, addresses in column 2 (user_email)",
			want: []string{"2 ann@example.net"},
		},
		"no header": {
			text: "1,Ann,ann@example.net\n2,Bob,bob@example.net\n",
			form: "CSV with commas, addresses in column 3",
			want: []string{"1 ann@example.net", "2 bob@example.net"},
		},
		"a comment first, and in between": {
			text: "# exported today, by Ann\nname,email\n#Bob,bob@example.net\n# later\nAnn,ann@example.net\n",
			form: "CSV with commas, addresses in column 2 (email)",
			want: []string{"3 bob@example.net (#Bob)", "5 ann@example.net (Ann)"},
		},
		"a person commented out": {
			text: "email,name\n#ann@example.net,Ann\nbob@example.net,Bob\n",
			form: "CSV with commas, addresses in column 1 (email)",
			want: []string{"3 bob@example.net (Bob)"},
		},
		"a column of numbers": {
			text: "#,Email,Name\n1,ann@example.net,Ann\n",
			form: "CSV with commas, addresses in column 2 (Email)",
			want: []string{"2 ann@example.net (Ann)"},
		},
		"names that nobody knows": {
			text: "Wer;Wohin\nAnn;ann@example.net\nBob;bob@example.net\n",
			form: "CSV with semicolons, addresses in column 2 (Wohin)",
			want: []string{"2 ann@example.net", "3 bob@example.net"},
		},
		"a name that promises too much": {
			text: "mail;who\nyes;ann@example.net\nno;bob@example.net\n",
			form: "CSV with semicolons, addresses in column 2 (who)",
			want: []string{"2 ann@example.net", "3 bob@example.net"},
		},
		"the column said by name": {
			text: "email,work\nann@example.net,ann@example.org\n", column: "WORK",
			form: "CSV with commas, addresses in column 2 (work)",
			want: []string{"2 ann@example.org"},
		},
		"the column said by number": {
			text: "email,work\nann@example.net,ann@example.org\n", column: "2",
			form: "CSV with commas, addresses in column 2 (work)",
			want: []string{"2 ann@example.org"},
		},
		"the column said by number, no header": {
			text: "ann@example.net\tann@example.org\n", column: "2",
			form: "CSV with tabs, addresses in column 2",
			want: []string{"1 ann@example.org"},
		},
		"a mistyped one, an empty one, a short row": {
			text: "name,email\nAnn,ann@example.net\nBob,bob.example.net\nCarl,\nDora\n\nEve, eve@example.org \nFay,\"fay@example.org, gil@example.org\"\n",
			form: "CSV with commas, addresses in column 2 (email)",
			want: []string{"2 ann@example.net (Ann)", "3 bob.example.net ! no @", "7 eve@example.org (Eve)", "8 fay@example.org (Fay)", "8 gil@example.org (Fay)"},
		},
		"quotes that are text": {
			text: "email,size,name\nann@example.net,5\",Ann\n\"b o\"@example.net,6\",\"Bob\" Lee\n",
			form: "CSV with commas, addresses in column 1 (email)",
			want: []string{"2 ann@example.net (Ann)", `3 "b o"@example.net ("Bob" Lee)`},
		},
		"two put together": {
			text: "email,name\nann@example.net,Ann\n\ufeffemail,name\nbob@example.net,Bob\n",
			form: "CSV with commas, addresses in column 1 (email)",
			want: []string{"2 ann@example.net (Ann)", "4 bob@example.net (Bob)"},
		},
		"a header alone": {
			text: "name,email\n",
			form: "CSV with commas, addresses in column 2 (email)",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := list.Options{Column: tc.column}
			if diff := cmp.Diff(tc.want, entriesOf(t, tc.text, o)); diff != "" {
				t.Error(diff)
			}
			l, err := list.Open(strings.NewReader(tc.text), o)
			if err != nil || l.Form() != tc.form {
				t.Errorf("form is %q, want %q, error %v", l.Form(), tc.form, err)
			}
		})
	}
}

func TestRowsWithoutAnAddressAreCounted(t *testing.T) {
	t.Parallel()
	l, err := list.Open(strings.NewReader("name,email\nAnn,ann@example.net\nBob,\n\nCarl\n"), list.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range l.Entries() {
		if err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff([]string{"name", "email"}, l.Columns()); diff != "" || l.Blank() != 2 {
		t.Errorf("%d blank, columns %q", l.Blank(), l.Columns())
	}
}
