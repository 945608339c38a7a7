package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/optimem/optimem/planner"
	"github.com/optimem/optimem/planner/contract"
	"github.com/optimem/optimem/planner/search"
)

// planFlags are the flags of plan as typed.
type planFlags struct {
	runFlags // those that say how a model is recorded

	link, machine string
	reuse         int64
	pagesAsGiven  bool
}

func newPlan(std stdio) *cobra.Command {
	var flags planFlags
	cmd := &cobra.Command{
		Use:   "plan INPUT --vram SIZE|PERCENT [flags]",
		Short: "Say what a budget of device memory would give, without running the model",
		Long: `Plan which weights stay on a device smaller than the model and which are brought in just before their use, and
say how long a forward takes then, how fast any schedule could be, and what other budgets would give.

INPUT is one of
  model.safetensors  a checkpoint, or a folder with its files or its index: only the headers are read
  manifest.json      a manifest, or a whole request, as docs/contract.md has them; - reads it from stdin
  torchvision:NAME   a model of torchvision: one forward is recorded
  file.py:factory    a function in a file that returns a model, or (model, inputs): one forward is recorded

A checkpoint does not say how long computation takes. With --reuse N the times are estimated for the card that
--device sim:NAME names, where a forward uses each weight N times: 1 in decoding, else the number of tokens or
positions. Without it the answer is the link's part alone.

Sizes take a unit (6GiB, 500MB) or a percentage of the weights (25%).

` + exitCodes,
		Example: `  optimemctl plan model.safetensors --vram 25% --reuse 1 --device sim:rtx4090
  optimemctl plan manifest.json --vram 6GiB --link 12GB/s --json
  optimemctl plan manifest.json --machine machine.json --mode auto
  optimemctl plan torchvision:resnet101 --vram 25%`,
		Args: oneArgument("INPUT", inputForms, ""),
		RunE: func(cmd *cobra.Command, args []string) error {
			question, err := flags.question(args[0], cmd.Flags())
			if err != nil {
				return misuse(cmd.Root(), []string{"plan"}, err)
			}
			return question.answer(cmd.Context(), std)
		},
	}
	flags.register(cmd.Flags())
	return cmd
}

const inputForms = "give model.safetensors, a folder with its index, manifest.json, torchvision:NAME, file.py:factory, or - for stdin"

func (f *planFlags) register(flags *pflag.FlagSet) {
	flags.StringVar(&f.vram, "vram", "", "device memory to plan for: a `SIZE` in all, activations included, or a percentage of the weights for weights alone (default: the machine's)")
	flags.StringVar(&f.mode, "mode", string(planner.ModePage), modeHelp)
	flags.StringVar(&f.link, "link", "", "`LINK` between RAM and the device: pcie4x16 and the like, or a rate such as 12GB/s (default: the machine's, or pcie4x16)")
	flags.StringVar(&f.machine, "machine", "", "`FILE` with the machine in JSON")
	flags.Int64Var(&f.reuse, "reuse", 0, "a checkpoint's times are estimated for `N` uses of each weight in a forward")
	flags.BoolVar(&f.pagesAsGiven, "pages-as-given", false, "every unit is one page and one copy: merge and split nothing")
	flags.StringVar(&f.device, "device", "auto", "`NAME` of the device to record a model on, as in run; of a checkpoint sim:NAME, the card that its times are estimated for")
	flags.BoolVar(&f.json, "json", false, "print one JSON object instead of text")
	f.registerModel(flags)
}

// A question is a command line of plan that was found good.
type question struct {
	input   input
	flags   planFlags
	machine *contract.Machine // in place of the input's
	said    contract.Options  // in place of the input's, where not zero

	simulated bool // the forward was recorded on a simulated card
}

// question checks everything that can be checked before the input is read.
func (f *planFlags) question(text string, set *pflag.FlagSet) (question, error) {
	q := question{flags: *f}
	var err error
	if q.input, err = parseInput(text); err != nil {
		return q, err
	}
	if err := errors.Join(f.checkPlan(set), q.input.checkFlags(set)); err != nil {
		return q, err
	}
	if set.Changed("machine") {
		if q.machine, err = readMachine(f.machine); err != nil {
			return q, err
		}
	}
	q.said, err = f.said(set)
	return q, err
}

func (f *planFlags) checkPlan(set *pflag.FlagSet) error {
	if set.Changed("reuse") && (f.reuse < 1 || f.reuse > mostReuse) {
		return fmt.Errorf("--reuse %d: give from 1, as in decoding, to %d", f.reuse, mostReuse)
	}
	return errors.Join(f.checkCall(), f.checkPlace(set))
}

// mostReuse is the longest forward that is estimated, in tokens.
const mostReuse = 1 << 30

// said are the options that were given as flags; zero values were not.
func (f *planFlags) said(set *pflag.FlagSet) (o contract.Options, err error) {
	o.PagesAsGiven = f.pagesAsGiven
	if set.Changed("mode") {
		o.Mode, err = contract.ParseMode(f.mode)
		if err != nil {
			return o, fmt.Errorf("--mode: %w", err)
		}
	}
	if set.Changed("vram") {
		if o.VRAM, err = planner.ParseShare(f.vram); err != nil {
			return o, fmt.Errorf("--vram: %w", err)
		}
		if o.VRAM == (planner.Share{}) {
			return o, errors.New("--vram: it is empty: give a size, such as 6GiB, or a share of the weights, such as 25%")
		}
	}
	if set.Changed("link") {
		if o.Link, err = contract.ParseLink(f.link); err != nil {
			return o, fmt.Errorf("--link: %w", err)
		}
	}
	return o, nil
}

// answer reads the input, plans, and prints the answer.
func (q *question) answer(ctx context.Context, std stdio) error {
	request, err := q.request(ctx, std)
	if err != nil {
		return err
	}
	answer, err := request.Answer()
	if err != nil {
		return q.refusal(err)
	}
	text, err := answer.Encode()
	if err != nil {
		return fault("%w", err)
	}
	if !q.flags.json {
		plan, err := answer.Plan()
		if err != nil {
			return fault("%w", err)
		}
		text = planSheet{answer, plan, q.simulated}.text()
	}
	if _, err := std.out.Write(text); err != nil {
		return fault("print the answer: %w", err)
	}
	return nil
}

// refusal says why there is no plan: bad input, or something else is wrong.
func (q *question) refusal(err error) *exit {
	var small *search.TooSmallError
	var field *contract.Error
	switch {
	case errors.As(err, &field):
		return q.refusalOf(field)
	case errors.As(err, &small), errors.Is(err, planner.ErrInvalid), errors.Is(err, search.ErrBroken):
		return refused(q.input.name, err)
	}
	return fault("%s: %s", q.input.name, contract.Words(err))
}

// refusalOf names the flag that a field came from.
func (q *question) refusalOf(e *contract.Error) *exit {
	inMachine, isMachine := strings.CutPrefix(e.Field, "machine.")
	switch {
	case e.Field == "options.vram" && q.said.VRAM != (planner.Share{}):
		return refused("--vram", &contract.Error{Text: e.Text})
	case e.Field == "options.link" && q.said.Link.Rate > 0:
		return refused("--link", &contract.Error{Text: e.Text})
	case e.Field == "compute_ns" && q.input.kind == aCheckpoint:
		return refused("--reuse", &contract.Error{Text: e.Text})
	case isMachine && q.machine != nil:
		return refused("--machine "+q.flags.machine, &contract.Error{Field: inMachine, Text: e.Text})
	}
	return refused(q.input.name, e)
}

// refused is bad input, unless the planner is at fault.
func refused(name string, err error) *exit {
	if errors.Is(err, search.ErrBroken) {
		return fault("%s: %s", name, contract.Words(err))
	}
	return badInput("%s: %s", name, contract.Words(err))
}

// request is what the input asks for, and what the flags say of it.
func (q *question) request(ctx context.Context, std stdio) (contract.Request, error) {
	r, err := q.read(ctx, std)
	if err != nil {
		return r, err
	}
	r.Options.Mode = cmp.Or(q.said.Mode, r.Options.Mode)
	r.Options.VRAM = cmp.Or(q.said.VRAM, r.Options.VRAM)
	r.Options.Link = cmp.Or(q.said.Link, r.Options.Link)
	r.Options.PagesAsGiven = r.Options.PagesAsGiven || q.said.PagesAsGiven
	if q.machine != nil {
		r.Machine = *q.machine
	}
	if q.input.path != "-" && r.Options.VRAM == (planner.Share{}) && r.Machine.Budget == 0 && r.Machine.Free == 0 {
		return r, badInput("%s: there is no budget: give --vram, such as 6GiB or 25%% of the weights, or a machine with budget_bytes", q.input.name)
	}
	return r, nil
}
