package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/optimem/optimem/ipc"
)

// version is set by the linker: -ldflags "-X main.version=1.2.3". Without that it is the module's own.
var version string

// A versionInfo is what `version --json` prints.
type versionInfo struct {
	Version  string `json:"version"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
	Protocol uint64 `json:"protocol"`
}

func newVersion(std stdio) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "version",
		Short:   "Show the version, and the protocol that workers must speak",
		Example: "  optimemctl version --json",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			info := versionNow()
			if asJSON {
				return json.NewEncoder(std.out).Encode(info)
			}
			_, err := fmt.Fprintf(std.out, "optimemctl %s (%s, %s), protocol %d\n", info.Version, info.Go, info.Platform, info.Protocol)
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object instead of text")
	return cmd
}

func versionNow() versionInfo {
	return versionInfo{
		Version:  cmp.Or(version, moduleVersion(), "unknown"),
		Go:       runtime.Version(),
		Platform: runtime.GOOS + "/" + runtime.GOARCH,
		Protocol: ipc.Version,
	}
}

func moduleVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	return info.Main.Version
}
