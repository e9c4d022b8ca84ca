package main

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"bulkmail/subjects/campaign"
)

// What the shell offers at the tab key. Whatever goes wrong, it offers nothing,
// soon and in silence: somebody is typing.
const (
	completeDial   = 300 * time.Millisecond
	completeWithin = time.Second
	completeMost   = 100
)

// completeWords makes the shell offer words for a flag.
func completeWords(cmd *cobra.Command, flag string, words ...string) {
	completeFlag(cmd, flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp))
}

func completeFlag(cmd *cobra.Command, flag string, complete cobra.CompletionFunc) {
	if err := cmd.RegisterFlagCompletionFunc(flag, complete); err != nil {
		panic(err) // a flag that the command does not have
	}
}

// completeFiles leaves a flag or an argument to the shell, which knows files.
func completeFiles(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveDefault
}

// completeQuietly keeps the shell from offering files where none belong: to
// flags whose value is no FILE or DIR, and to arguments.
func completeQuietly(cmd *cobra.Command) {
	if cmd.ValidArgsFunction == nil {
		cmd.ValidArgsFunction = cobra.NoFileCompletions
	}
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		value, _ := pflag.UnquoteUsage(f)
		if _, complete := cmd.GetFlagCompletionFunc(f.Name); !complete && f.NoOptDefVal == "" && value != "FILE" && value != "DIR" {
			completeFlag(cmd, f.Name, cobra.NoFileCompletions)
		}
	})
	for _, sub := range cmd.Commands() {
		completeQuietly(sub)
	}
}

// upTo makes a command offer something for its first n arguments, the same once.
func upTo(n int, offers func(ctx context.Context) []string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) >= n {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), completeWithin)
		defer cancel()
		offered := slices.DeleteFunc(offers(ctx), func(offer string) bool {
			word, _, _ := strings.Cut(offer, "\t")
			return slices.Contains(args, word)
		})
		return offered[:min(len(offered), completeMost)], cobra.ShellCompDirectiveNoFileComp
	}
}

// completeCampaign offers the campaigns that the broker knows of.
func completeCampaign() cobra.CompletionFunc {
	return upTo(1, func(ctx context.Context) []string {
		var names []string
		withQuietClient(func(c *campaign.Client) {
			if known, err := c.Campaigns(ctx); err == nil {
				names = slices.Sorted(slices.Values(known))
			}
		})
		return names
	})
}

// completeCampaignFlag offers them for a flag, whatever the arguments are.
func completeCampaignFlag(cmd *cobra.Command, flag string) {
	complete := completeCampaign()
	completeFlag(cmd, flag, func(cmd *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
		return complete(cmd, nil, typed)
	})
}

// completeDead offers the numbers of dead letters.
func completeDead() cobra.CompletionFunc {
	return upTo(completeMost, func(ctx context.Context) []string {
		var numbers []string
		withQuietClient(func(c *campaign.Client) {
			for l, err := range c.DeadLetters(ctx, "") {
				if err != nil || len(numbers) == completeMost {
					return
				}
				numbers = append(numbers, fmt.Sprintf("%s\t%s, %s", strconv.FormatUint(l.Number, 10), l.Campaign, l.Cause))
			}
		})
		return numbers
	})
}

// completeRelay offers the relays that are configured.
func completeRelay() cobra.CompletionFunc {
	return upTo(1, func(context.Context) []string {
		_, _, relays, err := loadAll()
		if err != nil {
			return nil
		}
		var names []string
		for _, r := range relays {
			names = append(names, r.Name)
		}
		return names
	})
}

// withQuietClient connects once, without making anything on the broker.
func withQuietClient(do func(*campaign.Client)) {
	c, names, err := loadConfig()
	if err != nil {
		return
	}
	if c.NATSURL == "" {
		c.NATSURL = defaultURL
	}
	log := slog.New(slog.DiscardHandler)
	nc, err := nats.Connect(c.NATSURL, append(c.natsOptions("completion", log), nats.NoReconnect(), nats.Timeout(completeDial))...)
	if err != nil {
		return
	}
	defer nc.Close()
	if js, err := jetstream.New(nc); err == nil {
		do(campaign.New(js, names, campaign.Options{}))
	}
}
