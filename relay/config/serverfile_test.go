package config_test

import (
	"strings"
	"testing"
	"time"

	"bulkmail/relay/config"
)

const server = "define package Mail::Bulkmail::Server\n"

func TestAttributesAreReadInAnyCaseAndMisspeltAsInTheSample(t *testing.T) {
	t.Parallel()
	c := loadText(t, server+`
		SMTP = a.example
		port = 2525
		tries=3
		max_message_per_robin	=	7
		conversation = stderr
		SLEEP_LENGTH = 10
		worthless_for = 0
		tls = required
	`)[0]
	if c.Port != 2525 || c.Tries != 3 || c.MaxMessagesPerRobin != 7 || c.Conversation != "stderr" ||
		c.SleepLength != 10*time.Second || c.WorthlessFor >= 0 || c.TLS != "required" {
		t.Errorf("got %v", c)
	}
}

func TestOfTwoValuesTheLastCounts(t *testing.T) {
	t.Parallel()
	c := loadText(t, server+"Smtp = a.example\nTries = 3\nTries = 4\nTries = undef\nPort = 26\nPort = 27")[0]
	if c.Port != 27 || c.Tries != 5 {
		t.Errorf("port %d, tries %d", c.Port, c.Tries)
	}
}

// The page's second sample: a master with all values, a list of hosts alone.
func TestOneServerOfAListIsLeftToTheDefaultByUndef(t *testing.T) {
	t.Parallel()
	relays, err := config.Load("", "master", onDisk(map[string]string{
		"master": server + "server_file = servers\nPort = 25\nTries = 5\nmax_message_per_robin = 1000\nenvelope_limit = 50\n",
		"servers": server + `
 #set up the first server
 Smtp @= smtp1.example.net
 envelope_limit @= 10
 #set up the second server
 Smtp @= smtp2.example.net
 envelope_limit @= undef
`,
	}))
	if err != nil {
		t.Fatal(err)
	}
	if relays[0].EnvelopeLimit != 10 || relays[1].EnvelopeLimit != 50 || relays[1].MaxMessagesPerRobin != 1000 {
		t.Errorf("got %d, %d", relays[0].EnvelopeLimit, relays[1].EnvelopeLimit)
	}
}

func TestAServerFileOverridesItsMaster(t *testing.T) {
	t.Parallel()
	relays, err := config.Load("", "master", onDisk(map[string]string{
		"master":  server + "server_file = servers\nPort = 26\nTries = 2\n",
		"servers": server + "Smtp @= a.example\nPort = 27\nsleep_length @= 10\n",
	}))
	if err != nil {
		t.Fatal(err)
	}
	if relays[0].Port != 27 || relays[0].Tries != 2 {
		t.Errorf("port %d, tries %d", relays[0].Port, relays[0].Tries)
	}
}

func TestAServerOfTheMasterIsNoneOfItsServerFile(t *testing.T) {
	t.Parallel()
	_, err := config.Load("", "master", onDisk(map[string]string{
		"master":  server + "server_file = servers\nSmtp = a.example\n",
		"servers": server + "Port = 25\n",
	}))
	if err == nil || err.Error() != "servers:1: Smtp: no server is named: write Smtp @= mx.example.com for each" {
		t.Errorf("got %v", err)
	}
}

func TestLinesOfOtherUsersAndPackagesAreSkipped(t *testing.T) {
	t.Parallel()
	c := loadText(t, `
define package Mail::Bulkmail::Object
Tries = 99
nonsense here
define package Mail::Bulkmail
envelope_limit = 98
connected = 1
define package Mail::Bulkmail::Server
Smtp = a.example
talk_attempts = 11
1000 : talk_attempts = 12
87: talk_attempts = 13
87: unknown_attribute = 13
define package Mail::Bulkmail::Dynamic
Port = 97
`)[0]
	if c.Tries != 5 || c.EnvelopeLimit != 100 || c.TalkAttempts != 12 || c.Port != 25 {
		t.Errorf("tries %d, envelope_limit %d, talk_attempts %d, port %d", c.Tries, c.EnvelopeLimit, c.TalkAttempts, c.Port)
	}
}

func TestAPackageMayBeDefinedInPieces(t *testing.T) {
	t.Parallel()
	relays := loadText(t, server+"Smtp @= a.example\ndefine package Mail::Bulkmail\nforce80 = 1\n"+server+"Smtp @= b.example\nPort @= 1025\nPort @= 1026")
	if names(relays) != "a.example:1025 b.example:1026" {
		t.Error(names(relays))
	}
}

func TestTheSameServerTwiceIsTwoRelays(t *testing.T) {
	t.Parallel()
	relays := loadText(t, server+"Smtp @= a.example\nSmtp @= a.example\nSmtp @= a.example")
	if names(relays) != "a.example a.example-2 a.example-3" {
		t.Error(names(relays))
	}
}

func TestTheClassOfServersIsChosenAsInTheSeed(t *testing.T) {
	t.Parallel()
	const (
		class   = "define package Mail::Bulkmail\nserver_class = Mail::Bulkmail::"
		servers = server + "Smtp @= a.example\nSmtp @= b.example\nPort = 2525\n"
		dummy   = "define package Mail::Bulkmail::DummyServer\ndummy_file = /tmp/dummy.file\n"
	)
	for name, test := range map[string]struct{ text, want string }{
		"no class, a dummy left from debugging": {servers + dummy, "smtp a.example:2525, smtp b.example:2525"},
		"class Server":                          {class + "Server\n" + servers + dummy, "smtp a.example:2525, smtp b.example:2525"},
		"class DummyServer inherits":            {class + "DummyServer\n" + servers + dummy, "dummy a.example /tmp/dummy.file, dummy b.example /tmp/dummy.file"},
		"a dummy alone":                         {dummy, "dummy dummy:dummy.file /tmp/dummy.file"},
		"a dummy with servers of its own":       {servers + dummy + "Smtp @= d.example\n", "smtp a.example:2525, smtp b.example:2525, dummy d.example /tmp/dummy.file"},
		"a dummy beside defaults":               {server + "Port = 25\n" + dummy, "dummy dummy:dummy.file /tmp/dummy.file"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got []string
			for _, c := range loadText(t, test.text) {
				got = append(got, strings.TrimSpace(c.Kind+" "+c.Name+" "+c.Path))
			}
			if strings.Join(got, ", ") != test.want {
				t.Errorf("got  %s\nwant %s", strings.Join(got, ", "), test.want)
			}
		})
	}
}

func TestADummyOfAServerFileInheritsItsServers(t *testing.T) {
	t.Parallel()
	relays, err := config.Load("", "master", onDisk(map[string]string{
		"master": "define package Mail::Bulkmail\nserver_class = Mail::Bulkmail::DummyServer\n" +
			server + "server_file = servers\nTries = 9\nSmtp = never.example\n" +
			"define package Mail::Bulkmail::DummyServer\ndummy_file = d\n",
		"servers": server + "Smtp @= a.example\nSmtp @= b.example\nPort @= 25\nPort @= 26\n",
	}))
	if err != nil {
		t.Fatal(err)
	}
	if names(relays) != "a.example b.example" || relays[1].Kind != "dummy" || relays[1].Path != "d" || relays[1].Tries != 9 {
		t.Errorf("got %v", relays)
	}
}

// The page says: if you want to set up a value for one server, set it up for
// all of them.
func TestListsOfUnequalLengthNameKeyLineAndBothCounts(t *testing.T) {
	t.Parallel()
	got := problemsOf(t, server+"Smtp @= a.example\nSmtp @= b.example\nPort @= 25\nTries @= 1\nTries @= 2\nTries @= 3\n")
	want := []string{
		"relays:4: Port: 1 value for 2 servers (Smtp, from line 2): write one for each (undef leaves a server to the default), or a single = for all",
		"relays:5: Tries: 3 values for 2 servers (Smtp, from line 2): write one for each (undef leaves a server to the default), or a single = for all",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}
