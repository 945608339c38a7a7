package main

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/optimem/optimem/planner/probe"
)

func newProbe(std stdio) *cobra.Command {
	var asJSON bool
	var library string
	cmd := &cobra.Command{
		Use:   "probe",
		Short: "Show the cards and the memory that a plan can count on",
		Long: `Show what optimem sees of this machine: each card with its memory and its link, the memory of the host, and
the limits on it. It reads the cards through NVML alone, and takes no device memory for that.`,
		Example: `  optimemctl probe
  optimemctl probe --json | jq '.cards[0].free_bytes'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkLibrary(library); err != nil {
				return misuse(cmd.Root(), []string{"probe"}, err)
			}
			reading, err := probe.Default(library).Probe(cmd.Context())
			if err != nil {
				return probeFault(library, err)
			}
			return printReading(std.out, reading, asJSON)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object instead of text")
	cmd.Flags().StringVar(&library, "nvml-library", "", "`FILE` of the NVML library to read the cards with")
	return cmd
}

// probeFault is bad input where the user named the library.
func probeFault(library string, err error) *exit {
	if library != "" {
		return badInput("--nvml-library %s: %w", library, err)
	}
	return fault("%w", err)
}

func printReading(w io.Writer, reading probe.Reading, asJSON bool) error {
	if asJSON {
		encoder := json.NewEncoder(w)
		encoder.SetEscapeHTML(false)
		encoder.SetIndent("", "  ")
		return encoder.Encode(reading)
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(name, format string, args ...any) {
		_, _ = fmt.Fprintf(table, "%s\t%s\n", name, fmt.Sprintf(format, args...))
	}
	if len(reading.Cards) == 0 {
		line("card", "no card")
	}
	for _, card := range reading.Cards {
		line(fmt.Sprintf("card %d", card.Index), "%s", cardText(card))
		line("  uuid", "%s", clean(card.UUID))
		line("  link", "%s", linkText(card.Link))
		for _, p := range card.Processes {
			line("  process", "%d %s: %v", p.PID, clean(p.Name), p.Bytes)
		}
	}
	host := reading.Host
	line("memory", "%v, of which this process can have %v", host.TotalBytes, host.FreeBytes)
	line("cgroup", "%s", cgroupText(host.Cgroup))
	line("memlock", "%s", host.Memlock)
	for _, note := range reading.Notes {
		line("note", "%s", clean(note))
	}
	return table.Flush()
}

func cardText(card probe.Card) string {
	text := clean(card.Name)
	if card.MemoryKnown() {
		text += fmt.Sprintf(", %v, of which %v free", card.TotalBytes, card.FreeBytes)
	}
	if card.DriverVersion != "" {
		text += ", driver " + clean(card.DriverVersion)
	}
	if card.MIG {
		text += ", split into instances (MIG)"
	}
	return text
}

func linkText(link probe.Link) string {
	if link.MaxBytesPerSecond == 0 {
		return "not known"
	}
	return fmt.Sprintf("PCIe %d x%d, up to %v/s; now PCIe %d x%d", link.MaxGeneration, link.MaxWidth, link.MaxBytesPerSecond,
		link.Generation, link.Width)
}

func cgroupText(cgroup probe.Cgroup) string {
	switch {
	case cgroup.Version == 0:
		return "none"
	case !cgroup.Headroom.Limited:
		return fmt.Sprintf("version %d, no limit", cgroup.Version)
	}
	return fmt.Sprintf("version %d, leaves %v (set by %s)", cgroup.Version, cgroup.Headroom.Bytes, cgroup.Tightest)
}
