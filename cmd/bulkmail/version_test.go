package main

import (
	"runtime"
	"runtime/debug"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTheVersionTellsTheCommitAndWhetherItWasModified(t *testing.T) {
	t.Parallel()
	platform := runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH
	committed := []debug.BuildSetting{
		{Key: "CGO_ENABLED", Value: "0"}, {Key: "vcs", Value: "git"},
		{Key: "vcs.revision", Value: "3aa0efa"}, {Key: "vcs.time", Value: "2026-11-02T09:30:00Z"},
	}
	for name, c := range map[string]struct {
		info debug.BuildInfo
		want string
	}{
		"of a commit": {
			debug.BuildInfo{Main: debug.Module{Version: "v1.2.0"}, Settings: append(committed, debug.BuildSetting{Key: "vcs.modified", Value: "false"})},
			"bulkmail v1.2.0\ncommit   3aa0efa\ndate     2026-11-02T09:30:00Z\ngo       " + platform,
		},
		"of a modified tree": {
			debug.BuildInfo{Main: debug.Module{Version: "v1.2.0+dirty"}, Settings: append(committed, debug.BuildSetting{Key: "vcs.modified", Value: "true"})},
			"bulkmail v1.2.0+dirty\ncommit   3aa0efa, modified\ndate     2026-11-02T09:30:00Z\ngo       " + platform,
		},
		"outside of a repository": {
			debug.BuildInfo{Main: debug.Module{Version: "(devel)"}},
			"bulkmail (devel)\ngo       " + platform,
		},
		"without any information": {debug.BuildInfo{}, "bulkmail (devel)\ngo       " + platform},
	} {
		if diff := cmp.Diff(c.want, buildOf(&c.info).String()); diff != "" {
			t.Errorf("%s: -want +got\n%s", name, diff)
		}
	}
}
