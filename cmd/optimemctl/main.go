// Command optimemctl runs PyTorch inference on a device smaller than the model.
//
// It is the front door: it reads flags, holds a controller, starts workers, and says in plain words what came out.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
)

func main() {
	keepBrokenPipes()
	os.Exit(execute(context.Background(), os.Args[1:], stdio{in: os.Stdin, out: os.Stdout, err: os.Stderr}))
}

// stdio is where a command reads and writes.
type stdio struct {
	in       io.Reader
	out, err io.Writer
}

// execute runs one command line and returns the exit code. An error is printed once, here.
func execute(ctx context.Context, args []string, std stdio) int {
	root := newRoot(std)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return codeDone
	}
	var e *exit
	if !errors.As(err, &e) { // cobra's own: a wrong flag or argument
		e = misuse(root, args, err)
	}
	_, _ = fmt.Fprintf(std.err, "optimemctl: %s\n", clean(e.Error()))
	return e.code
}

func newRoot(std stdio) *cobra.Command {
	root := &cobra.Command{
		Use:   "optimemctl",
		Short: "Run PyTorch inference on a device smaller than the model",
		Long: `optimemctl runs inference with a PyTorch model on a device that is smaller than the model: weights that do
not fit stay in RAM and are brought in just before their use. The model's code is not touched, and the
result has the same bits. Where there is no accelerator it runs on a simulated card, and says so.`,
		Example: `  optimemctl run torchvision:resnet101 --vram 25%
  optimemctl run model.py:build --vram 6GiB --input photo.jpg --size 512x512
  optimemctl run script.py -- --steps 20
  optimemctl plan model.safetensors --vram 25%
  optimemctl probe`,
		Args:          cobra.NoArgs,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetIn(std.in)
	root.SetOut(std.out)
	root.SetErr(std.err)
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(newRun(std), newPlan(std), newProbe(std), newReport(std), newServe(std), newVersion(std))
	return root
}
