package sink_test

import (
	"errors"
	"regexp"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"bulkmail/relay/sink"
)

func TestARuleAnswersItsPhase(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		rule            string
		mail, rcpt, dot string // replies to a@example.com, to b@defer.test and to the dot
	}{
		{"MAIL:*@example.com=550 5.7.1 not you", "550 5.7.1 not you", "502", ""},
		{"MAIL:=550 no bounces", "250", "250", "250"},
		{"RCPT:*@defer.test=451 4.2.0 later", "250", "451 4.2.0 later", ""},
		{"rcpt:*@DEFER.test=451 4.2.0 later", "250", "451 4.2.0 later", ""},
		{"RCPT=550 5.1.1 nobody here", "250", "550 5.1.1 nobody here", ""},
		{"RCPT:*@other.test=451 4.2.0 later", "250", "250", "250"},
		{"RCPT:b@defer.test=450 later = soon: 5.1.1", "250", "450 later = soon: 5.1.1", ""},
		{"RCPT:b*=550 4.2.0 classes disagree", "250", "550 4.2.0 classes disagree", ""},
		{"RCPT:b*=450", "250", "450", ""},
		{"DATA:*@defer.test=554 5.7.1 spam", "250", "250", "554 5.7.1 spam"},
		{"DATA:a@example.com=554 5.7.1 spam", "250", "250", "250"},
	} {
		t.Run(tc.rule, func(t *testing.T) {
			t.Parallel()
			s := start(t, sink.Options{}, tc.rule)
			c := greeted(t, s)
			c.say("MAIL FROM:<a@example.com>", "RCPT TO:<b@defer.test>")
			c.expect(tc.mail, tc.rcpt)
			if tc.dot == "" {
				return
			}
			c.say("DATA")
			c.expect("354")
			c.say(".")
			c.expect(tc.dot)
		})
	}
}

func TestARuleForConnectAnswersInPlaceOfTheGreeting(t *testing.T) {
	t.Parallel()
	s := start(t, sink.Options{}, "CONNECT first 1:127.0.0.1=554 5.3.2 no service", "CONNECT first 1=421 busy",
		"CONNECT first 1:127.*=drop")
	for _, want := range []string{"554 5.3.2 no service", "421 busy"} {
		c := dial(t, s)
		c.expect(want)
		c.expectEnd()
	}
	dial(t, s).expectEnd()
	dial(t, s).expect("220")
	if got := s.Counts(); got.Connections != 4 || got.Replies["CONNECT drop"] != 1 {
		t.Errorf("counts are\n%v", got)
	}
}

func TestARuleForEHLORefusesTheName(t *testing.T) {
	t.Parallel()
	s := start(t, sink.Options{}, "EHLO first 1:old.test=502 5.5.1 what", "EHLO:bad.*=554 5.7.1 go away")
	c := dial(t, s)
	c.expect("220")
	c.say("EHLO bad.test", "EHLO old.test", "HELO old.test")
	c.expect("554 5.7.1 go away", "502 5.5.1 what", "250")
}

func TestFirstNCountsEachRecipientByItself(t *testing.T) {
	t.Parallel()
	s := start(t, sink.Options{}, "RCPT first 2:*@defer.test=451 4.2.0 later")
	deferred := map[string]int{}
	for range 3 { // whatever session it is
		c := greeted(t, s)
		rcpt, _ := c.send("a@example.com", "b@x.test", "c@defer.test", "d@defer.test", "C@defer.test")
		for i, to := range []string{"b", "c", "d", "c"} {
			if strings.HasPrefix(rcpt[i], "451") {
				deferred[to]++
			}
		}
	}
	if deferred["b"] != 0 || deferred["c"] != 2 || deferred["d"] != 2 {
		t.Errorf("deferred %v", deferred)
	}
}

func TestFirstNAtTheDotCountsAllRecipientsOfTheTransaction(t *testing.T) {
	t.Parallel()
	c := greeted(t, start(t, sink.Options{}, "DATA first 1:*@defer.test=451 4.2.0 later"))
	for _, step := range []struct {
		to  []string
		dot string
	}{
		{[]string{"b@x.test"}, "250"},
		{[]string{"c@defer.test", "d@defer.test"}, "451"},
		{[]string{"d@defer.test"}, "250"},
		{[]string{"d@defer.test", "e@defer.test"}, "451"},
		{[]string{"c@defer.test", "d@defer.test", "e@defer.test"}, "250"},
	} {
		if _, dot := c.send("a@example.com", step.to...); !strings.HasPrefix(dot, step.dot) {
			t.Errorf("%v: answered %q, want %s", step.to, dot, step.dot)
		}
	}
}

func TestTheFirstRuleThatAppliesIsTaken(t *testing.T) {
	t.Parallel()
	c := greeted(t, start(t, sink.Options{}, "RCPT first 1:*@x.test=450 one", "RCPT:b@*=451 two", "RCPT:*=452 three"))
	rcpt := func(to string) string {
		c.say("RCPT TO:<" + to + ">")
		return c.reply()
	}
	c.say("MAIL FROM:<>")
	c.expect("250")
	for _, want := range []string{"450 one", "451 two", "451 two"} {
		if got := rcpt("b@x.test"); got != want {
			t.Errorf("reply is %q, want %q", got, want)
		}
	}
}

func TestTheSinkTurnsKind(t *testing.T) {
	t.Parallel()
	s := start(t, sink.Options{}, "RCPT=451 4.2.0 later")
	c := greeted(t, s)
	c.say("MAIL FROM:<a@example.com>", "RCPT TO:<b@x.test>")
	c.expect("250", "451")
	s.SetRules(nil)
	c.say("RCPT TO:<b@x.test>", "DATA")
	c.expect("250", "354")
	c.say(".")
	c.expect("250")
}

func TestA421EndsTheSessionAndNothingAfterItCounts(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		rule     string
		replies  []string
		messages string
	}{
		{"MAIL:*=421 4.3.2 going down", []string{"421"}, "short"},
		{"MAIL:*=421 4.3.2 going down", []string{"421"}, "long"},
		{"RCPT:2@x.test=421 4.3.2 going down", []string{"250", "250", "421"}, "short"},
		{"RCPT:2@x.test=421 4.3.2 going down", []string{"250", "250", "421"}, "long"},
		{"DATA:*=421 4.3.2 going down", []string{"250", "250", "250", "250", "354", "421"}, "short"},
		{"DATA:*=421 4.3.2 going down", []string{"250", "250", "250", "250", "354", "421"}, "long"},
	} {
		t.Run(tc.rule+"/"+tc.messages, func(t *testing.T) {
			t.Parallel()
			s := start(t, sink.Options{Recorder: func(sink.Transaction) { t.Error("recorded") }}, tc.rule)
			c := greeted(t, s)
			transaction := []string{
				"MAIL FROM:<a@example.com>", "RCPT TO:<1@x.test>", "RCPT TO:<2@x.test>", "RCPT TO:<3@x.test>", "DATA",
				"Subject: t", "", "hi",
			}
			if tc.messages == "long" { // more than the sink reads in one go
				transaction = append(transaction, strings.Repeat("a line of the message\r\n", 10_000))
			}
			transaction = append(transaction, ".")
			c.say(slices.Concat(transaction, transaction)...)
			c.expect(tc.replies...)
			c.expectEnd()
			c.tcp.Close()
			if err := s.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			got := s.Counts()
			var said int64
			for _, n := range got.Replies {
				said += n
			}
			// 354 is go-smtp's; EHLO was said before.
			if want := len(slices.DeleteFunc(tc.replies, func(r string) bool { return r == "354" })) + 1; said != int64(want) {
				t.Errorf("%d replies, want %d; counts are\n%v", said, want, got)
			}
		})
	}
}

func TestDropClosesWithoutAReply(t *testing.T) {
	t.Parallel()
	s := start(t, sink.Options{Recorder: func(sink.Transaction) { t.Error("recorded") }}, "DATA:*=drop")
	c := greeted(t, s)
	c.say("MAIL FROM:<a@example.com>", "RCPT TO:<b@x.test>", "DATA", ".")
	c.expect("250", "250", "354")
	c.expectEnd()
	if got := s.Counts(); got.Transactions != 0 || got.Replies["DATA drop"] != 1 {
		t.Errorf("counts are\n%v", got)
	}
}

func TestTakeAndDropTakesTheMessageWithoutAReply(t *testing.T) {
	t.Parallel()
	recorded := 0
	s := start(t, sink.Options{Recorder: func(sink.Transaction) { recorded++ }}, "DATA:*=take-and-drop")
	c := greeted(t, s)
	c.say("MAIL FROM:<a@example.com>", "RCPT TO:<b@x.test>", "DATA", ".")
	c.expect("250", "250", "354")
	c.expectEnd()
	if got := s.Counts(); recorded != 1 || got.Accepted != 1 || got.Replies["DATA take-and-drop"] != 1 {
		t.Errorf("recorded %d, counts are\n%v", recorded, got)
	}
}

func TestABadRuleSaysWhatToChange(t *testing.T) {
	t.Parallel()
	for rule, want := range map[string]string{
		"":                        `has no reply; write it as RCPT:*@example.test=451 4.2.0 later`,
		"451 later":               `has no reply; write it as RCPT:*@example.test=451 4.2.0 later`,
		"QUIT:*=451 later":        `begins with "QUIT"; use CONNECT, EHLO, MAIL, RCPT or DATA`,
		"*@x.test=451 later":      `begins with "*@x.test"; use CONNECT, EHLO, MAIL, RCPT or DATA`,
		"RCPT:*@x.test":           `has no reply; add =CODE TEXT at the end, as in =451 4.2.0 later`,
		"RCPT:*@x.test=":          `has the code ""; use one from 400 to 599, drop, or with DATA take-and-drop`,
		"RCPT:*@x.test=later 451": `has the code "later"; use one from 400 to 599, drop, or with DATA take-and-drop`,
		"RCPT:*=250 fine":         `has the code "250"; use one from 400 to 599, drop, or with DATA take-and-drop`,
		"RCPT:*=4510 x":           `has the code "4510"; use one from 400 to 599, drop, or with DATA take-and-drop`,
		"RCPT 2:*=451 x":          `has "2" after RCPT; write RCPT first N, with N from 1 up`,
		"RCPT first 0:*=451 x":    `has "first 0" after RCPT; write RCPT first N, with N from 1 up`,
		"RCPT:*=take-and-drop":    `RCPT cannot take a message; use take-and-drop with DATA only`,
		"RCPT:*=451 a\r\n250 b":   `has a control character; write it on one line`,
	} {
		_, err := sink.ParseRule(rule)
		var ruleErr *sink.RuleError
		if !errors.As(err, &ruleErr) || ruleErr.Problem != want || ruleErr.Rule != rule {
			t.Errorf("%q: error is %v, want %s", rule, err, want)
		}
	}
	_, err := sink.ParseRules("RCPT:*=451 fine", "one", "two")
	if err == nil || strings.Count(err.Error(), "has no reply") != 2 {
		t.Errorf("not every bad rule is reported: %v", err)
	}
}

func TestPatternsMatchAsTheirRegularExpressionDoes(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		pattern := rapid.StringMatching(`[ab*]{0,8}`).Draw(t, "pattern")
		key := rapid.StringMatching(`[ab]{0,8}`).Draw(t, "key")
		rule, err := sink.ParseRule("RCPT:" + pattern + "=451 later")
		if err != nil {
			t.Fatal(err)
		}
		expr := "^" + strings.ReplaceAll(pattern, "*", ".*") + "$"
		if got, want := sink.Matches(rule, key), regexp.MustCompile(expr).MatchString(key); got != want {
			t.Errorf("%q with %q: %v, want %v", pattern, key, got, want)
		}
	})
}

func FuzzParseRule(f *testing.F) {
	for _, seed := range []string{
		"RCPT:*@defer.test=451 4.2.0 later", "RCPT first 1:a=b@x.test=450 4.7.1 x=y", "CONNECT=421", "DATA:*=drop",
		"DATA=take-and-drop", "MAIL:*=", ":=", "EHLO:[::1]=550 5.0.0.0 x",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		rule, err := sink.ParseRule(text)
		if err != nil {
			var ruleErr *sink.RuleError
			if !errors.As(err, &ruleErr) || ruleErr.Problem == "" || ruleErr.Rule != text {
				t.Errorf("error is %#v", err)
			}
			return
		}
		if rule.String() != text {
			t.Errorf("written as %q, reads %q", text, rule.String())
		}
		sink.Matches(rule, text)
	})
}
