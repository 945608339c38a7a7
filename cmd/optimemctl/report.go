package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/optimem/optimem/internal/report"
)

// reportFlags are the flags of report as typed.
type reportFlags struct {
	output, trace string
	session       int
}

func newReport(std stdio) *cobra.Command {
	var flags reportFlags
	cmd := &cobra.Command{
		Use:   "report RUN.json [flags]",
		Short: "Draw a run or a plan as one HTML page",
		Long: `Draw what "run --json" or "plan --json" printed as one HTML page that needs no network: what both engines do
over two forwards, the memory that the weights take, the plan, what other budgets would give, and the numbers.

A - in place of RUN.json reads stdin; -o - writes the page to stdout.

` + exitCodes,
		Example: `  optimemctl run torchvision:resnet101 --vram 25% --json > run.json
  optimemctl report run.json
  optimemctl report run.json -o page.html --trace trace.json
  optimemctl report script.json --session 2`,
		Args: oneArgument("RUN.json", "give the file that `run --json` or `plan --json` printed, or - for stdin", ""),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := flags.check(args[0], cmd.Flags()); err != nil {
				return misuse(cmd.Root(), []string{"report"}, err)
			}
			return flags.run(args[0], std)
		},
	}
	cmd.Flags().StringVarP(&flags.output, "output", "o", "", "`FILE` for the page, - for stdout (default: RUN.html beside RUN.json)")
	cmd.Flags().IntVar(&flags.session, "session", 0, "session `N` of a script that had several, from 1 (default: the first)")
	cmd.Flags().StringVar(&flags.trace, "trace", "", "`FILE` for a trace of two forwards, for ui.perfetto.dev")
	return cmd
}

// check finds the output's name and what is wrong with the flags.
func (f *reportFlags) check(input string, set *pflag.FlagSet) error {
	if input != "-" {
		if err := readable("RUN.json", input); err != nil {
			return err
		}
	}
	if f.session < 0 {
		return fmt.Errorf("--session %d: give 1 or more", f.session)
	}
	if !set.Changed("output") {
		if input == "-" {
			return errors.New("no -o: say where the page of what stdin says is to go, or give -o - for stdout")
		}
		f.output = strings.TrimSuffix(input, ".json") + ".html"
	}
	if set.Changed("trace") {
		if err := checkPlaceOf("--trace", f.trace); err != nil {
			return err
		}
	}
	if f.output != "-" {
		if err := checkPlaceOf("-o", f.output); err != nil {
			return err
		}
	}
	return f.checkApart(input)
}

// checkApart refuses to write one file over another.
func (f *reportFlags) checkApart(input string) error {
	for _, pair := range [][2]string{{"-o", f.output}, {"--trace", f.trace}} {
		if sameFile(pair[1], input) {
			return fmt.Errorf("%s %s would overwrite what it is made from: name another file", pair[0], pair[1])
		}
	}
	if f.trace != "" && (sameFile(f.trace, f.output) || filepath.Clean(f.trace) == filepath.Clean(f.output)) {
		return fmt.Errorf("-o and --trace both name %s: name two files", f.trace)
	}
	return nil
}

// sameFile tells whether two names are of one file that is there.
func sameFile(a, b string) bool {
	one, err := os.Stat(a)
	if err != nil {
		return false
	}
	other, err := os.Stat(b)
	return err == nil && os.SameFile(one, other)
}

// run writes the page, and the trace if one is wanted.
func (f *reportFlags) run(input string, std stdio) error {
	text, err := readText(input, std.in)
	if err != nil {
		return &exit{codeBadInput, err}
	}
	name := input
	if input == "-" {
		name = "stdin"
	}
	subject, remark, err := readSubject(text, f.session)
	if err != nil {
		return refused(name, err)
	}
	if remark != "" {
		_, _ = fmt.Fprintf(std.err, "%s %s\n", name, remark)
	}
	var page bytes.Buffer
	if err := report.Write(&page, subject); err != nil {
		return refused(name, err)
	}
	if f.trace != "" {
		if err := writeTrace(f.trace, []report.Subject{subject}); err != nil {
			return fault("--trace: %w", err)
		}
	}
	return f.deliver(page.Bytes(), std.out)
}

// deliver puts the page where it is wanted.
func (f *reportFlags) deliver(page []byte, out io.Writer) error {
	if f.output == "-" {
		if _, err := out.Write(page); err != nil {
			return fault("write the page: %w", err)
		}
		return nil
	}
	if err := replaceFile(f.output, page); err != nil {
		return fault("-o: %w", err)
	}
	_, _ = fmt.Fprintf(out, "wrote %s\n", f.output)
	return nil
}
