package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/optimem/optimem/controller"
	"github.com/optimem/optimem/ipc"
	"github.com/optimem/optimem/planner"
	"github.com/optimem/optimem/planner/probe"
)

// runFlags are the flags of run as typed.
type runFlags struct {
	input, size, mode, vram, maxLayerSize, maxCapacity string
	device, nvmlLibrary, python, trace                 string
	imports                                            []string
	forwards, seed                                     int64
	json, verbose                                      bool
}

// modelOnly are the flags that say nothing to a script, which calls its model itself.
var modelOnly = []string{"input", "size", "mode", "forwards", "seed"}

func newRun(std stdio) *cobra.Command {
	var flags runFlags
	cmd := &cobra.Command{
		Use:   "run TARGET [flags] [-- ARGS...]",
		Short: "Run a model or a script within a budget of device memory",
		Long: `Run inference with a model on a device that may be smaller than it, and say how fast it was, how fast any
schedule could be within the budget, and whether the result is the plain model's, bit for bit.

TARGET is one of
  torchvision:NAME   a model of torchvision
  file.py:factory    a function in a file that returns a model, or (model, inputs)
  script.py          a program that calls optimem.page, chunk or fit itself; it gets what follows --

In page mode every module computes on the device, and weights that do not fit are brought in just before
their use. In chunk mode the best part of the model lives on the device, and the CPU computes the rest.
In auto mode weights stay, are brought in, or are left to the CPU, whatever is fastest: the second forward
runs on the CPU, to learn what it takes there.

Sizes take a unit (6GiB, 500MB) or a percentage of the weights (25%).

` + exitCodes,
		Example: `  optimemctl run torchvision:resnet101 --vram 25%
  optimemctl run torchvision:vit_l_16 --mode chunk --max-capacity 1GiB
  optimemctl run model.py:build --vram 6GiB --input photo.jpg --size 512x512 --json
  optimemctl run script.py --device cuda:1 -- --steps 20`,
		Args: oneArgument("TARGET", targetForms, ": arguments of the target go after --"),
		RunE: func(cmd *cobra.Command, args []string) error {
			request, err := flags.request(args[0], args[1:], cmd.Flags())
			if err != nil {
				return misuse(cmd.Root(), []string{"run"}, err)
			}
			return run(cmd.Context(), request, std)
		},
	}
	flags.register(cmd.Flags())
	return cmd
}

// oneArgument wants one argument, before "--" where that has a meaning. forms says what it may be, rest what to do with what
// follows it.
func oneArgument(name, forms, rest string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		count := len(args)
		if dash := cmd.ArgsLenAtDash(); rest != "" && dash >= 0 {
			count = dash
		}
		switch count {
		case 0:
			return fmt.Errorf("no %s: %s", name, forms)
		case 1:
			return nil
		}
		return fmt.Errorf("one %s is enough, but %q follows it%s", name, args[1], rest)
	}
}

func (f *runFlags) register(flags *pflag.FlagSet) {
	f.registerModel(flags)
	flags.StringVar(&f.mode, "mode", string(planner.ModePage), modeHelp)
	flags.StringVar(&f.vram, "vram", "", "device memory to use: a `SIZE` in all, activations included, or a percentage of the weights for weights alone (default: what is free)")
	flags.Int64Var(&f.forwards, "forwards", 5, "`N` forwards to run, 2 or more: the first one records the model, in auto mode (default 10) the second one runs on the CPU")
	flags.StringVar(&f.maxLayerSize, "max-layer-size", "", "page modules of up to `N` parameters whole (default: the planner chooses)")
	flags.StringVar(&f.maxCapacity, "max-capacity", "", "chunk: how much of the model may live on the device, `N` parameters or a size with a unit")
	flags.StringVar(&f.device, "device", "auto", "`NAME`: auto, cuda, mps, xla, xpu, cpu, sim (the simulated card), sim:rtx4090 (as that model), or a PyTorch device such as cuda:1")
	flags.BoolVar(&f.json, "json", false, "print one JSON object instead of text")
	flags.StringVar(&f.trace, "trace", "", "`FILE` for a trace of two forwards as the plan predicts them, for ui.perfetto.dev")
}

// registerModel registers what says how a model is loaded and called.
func (f *runFlags) registerModel(flags *pflag.FlagSet) {
	flags.StringVar(&f.input, "input", "", "`FILE` with a photograph to look at (default: noise made from the seed)")
	flags.StringVar(&f.size, "size", "", "size of the input in pixels, `WxH` (default: 224x224)")
	flags.StringArrayVar(&f.imports, "import", nil, "Python `MODULE` to import first, such as one that brings a device; repeatable")
	flags.StringVar(&f.nvmlLibrary, "nvml-library", "", "`FILE` of the NVML library to read the card with")
	flags.StringVar(&f.python, "python", "", "`PATH` of the Python to use (default: $OPTIMEM_PYTHON, the active environment, python3)")
	flags.Int64Var(&f.seed, "seed", 0, "`N` to make random weights and inputs from")
	flags.BoolVar(&f.verbose, "verbose", false, "log the conversation with the worker to stderr")
}

// A runRequest is a command line that was found good.
type runRequest struct {
	target    target
	args      []string // of the target
	flags     runFlags
	overrides controller.Overrides
	recording bool // the worker ends once a forward is recorded
	again     bool // the user was told already what is said of the card
}

// request checks everything that can be checked before anything is started.
func (f *runFlags) request(text string, args []string, set *pflag.FlagSet) (runRequest, error) {
	t, err := parseTarget(text)
	if err != nil {
		return runRequest{}, err
	}
	if planner.Mode(f.mode).Mixes() && !set.Changed("forwards") {
		f.forwards = autoForwards
	}
	overrides, err := f.overrides()
	if err != nil {
		return runRequest{}, err
	}
	if err := errors.Join(f.checkModel(), f.checkPlace(set), f.checkScript(t, set)); err != nil {
		return runRequest{}, err
	}
	return runRequest{target: t, args: args, flags: *f, overrides: overrides}, nil
}

// modeHelp explains --mode of run and plan.
var modeHelp = "`MODE`: " + planner.ModeNames() + "; auto mixes both"

// autoForwards is how many forwards are run in auto mode: some are left once all have been timed step by step.
const autoForwards = 10

// checkModel checks how often a model is run, and with what.
func (f *runFlags) checkModel() error {
	switch {
	case !planner.Mode(f.mode).Known():
		return fmt.Errorf("--mode %q: give %s", f.mode, planner.ModeNames())
	case f.forwards < 2:
		return fmt.Errorf("--forwards %d: give 2 or more, the first forward only records the model", f.forwards)
	case planner.Mode(f.mode).Mixes() && f.forwards < 3:
		return fmt.Errorf("--forwards %d: give 3 or more in %s mode, where the second forward runs on the CPU", f.forwards, f.mode)
	}
	return f.checkCall()
}

// checkCall checks what a model is made from and called with.
func (f *runFlags) checkCall() error {
	if f.seed < 0 {
		return fmt.Errorf("--seed %d: give 0 or more", f.seed)
	}
	if f.size != "" {
		if err := checkSize(f.size); err != nil {
			return err
		}
	}
	if f.input != "" {
		return readable("--input", f.input)
	}
	return nil
}

// checkPlace checks where it is run.
func (f *runFlags) checkPlace(set *pflag.FlagSet) error {
	return errors.Join(checkLibrary(f.nvmlLibrary), checkDevice(f.device), checkModules(f.imports), f.checkTrace(set))
}

func (f *runFlags) checkTrace(set *pflag.FlagSet) error {
	if !set.Changed("trace") {
		return nil
	}
	return checkPlaceOf("--trace", f.trace)
}

// checkScript refuses what a script would not hear of.
func (f *runFlags) checkScript(t target, set *pflag.FlagSet) error {
	if !t.script {
		return nil
	}
	for _, name := range modelOnly {
		if set.Changed(name) {
			return fmt.Errorf("--%s says nothing to a script, which calls its model itself: "+
				"set it in %s, or pass it on after --", name, t.text)
		}
	}
	return nil
}

func (f *runFlags) overrides() (o controller.Overrides, err error) {
	if f.vram != "" {
		if o.VRAM, err = planner.ParseShare(f.vram); err != nil {
			return o, fmt.Errorf("--vram: %w", err)
		}
	}
	if f.maxCapacity != "" {
		if o.MaxCapacity, err = planner.ParseCapacity(f.maxCapacity); err != nil {
			return o, fmt.Errorf("--max-capacity: %w", err)
		}
	}
	o.MaxLayerSize, err = parseLayerSize(f.maxLayerSize)
	return o, err
}

// parseLayerSize reads a number of parameters; -1 and nothing leave the choice to the planner.
func parseLayerSize(text string) (int64, error) {
	if text == "" || text == "-1" {
		return 0, nil
	}
	size, err := planner.ParseCapacity(text)
	if err != nil {
		return 0, fmt.Errorf("--max-layer-size: %w", err)
	}
	if size.Parameters == 0 {
		return 0, fmt.Errorf("--max-layer-size %q: give a number of parameters, without a unit", text)
	}
	return size.Parameters, nil
}

// workerArgs are the arguments of the interpreter.
func (r runRequest) workerArgs() []string {
	args := []string{"-u", "-m", "optimem_worker", "run", "--device", r.flags.device}
	for _, module := range r.flags.imports {
		args = append(args, "--import", module)
	}
	if !r.target.script {
		args = append(args, r.modelArgs()...)
	}
	args = append(args, r.target.text) // next to its own arguments: argparse takes positional ones in one go
	if len(r.args) > 0 {
		args = append(append(args, "--"), r.args...)
	}
	return args
}

func (r runRequest) modelArgs() []string {
	args := []string{
		"--mode", r.flags.mode,
		"--forwards", strconv.FormatInt(r.flags.forwards, 10),
		"--seed", strconv.FormatInt(r.flags.seed, 10),
	}
	if r.flags.input != "" {
		args = append(args, "--input", r.flags.input)
	}
	if r.flags.size != "" {
		args = append(args, "--size", r.flags.size)
	}
	return args
}

// command starts the worker: a script talks to our terminal as if it had been started by hand.
func (r runRequest) command(python string, std stdio) controller.Command {
	command := controller.Command{Python: python, Args: r.workerArgs()}
	switch {
	case !r.target.script:
	case r.flags.json:
		command.Stdout, command.Stderr = std.err, std.err
	default:
		command.Stdout, command.Stderr = std.out, std.err
	}
	return command
}

// run runs a request to its end and prints what came out.
func run(ctx context.Context, request runRequest, std stdio) error {
	end, err := carryOut(ctx, request, std)
	if err != nil {
		return err
	}
	return conclude(request, end, std)
}

// carryOut runs a request to its end.
func carryOut(ctx context.Context, request runRequest, std stdio) (ending, error) {
	python, err := pythonSearch{request.flags.python, os.Getenv, executable(), exec.LookPath}.find()
	if err != nil {
		return ending{}, &exit{codeBadInput, err}
	}
	if err := tryLibrary(ctx, request.flags.nvmlLibrary); err != nil {
		return ending{}, err
	}
	ctx, signals := guarded(ctx)
	defer signals.release()
	end, err := drive(ctx, request, python, signals, std)
	if interrupted, ok := errors.AsType[interruption](context.Cause(ctx)); ok {
		return end, interrupted.exit()
	}
	if told, ok := errors.AsType[*exit](err); ok {
		return end, told
	}
	if err != nil {
		return end, fault("%w", err)
	}
	return end, nil
}

// tryLibrary reads the cards once where the user named a library to read them with.
func tryLibrary(ctx context.Context, library string) error {
	if library == "" {
		return nil
	}
	if _, err := probe.Default(library).Probe(ctx); err != nil {
		return probeFault(library, err)
	}
	return nil
}

// nameOf is what the user called the model; a script's are called by their classes.
func (r runRequest) nameOf(manifest ipc.Manifest) string {
	if r.target.script {
		return clean(manifest.Model)
	}
	return r.target.text
}

// executable is the path of this program, empty where the system does not tell.
func executable() string {
	path, err := os.Executable()
	if err != nil {
		return ""
	}
	return path
}

// drive holds a private controller and one worker until the worker has ended, and leaves nothing behind.
func drive(ctx context.Context, request runRequest, python string, signals *guard, std stdio) (end ending, err error) {
	folder, err := privateDir()
	if err != nil {
		return ending{}, err
	}
	defer func() { err = errors.Join(err, folder.remove()) }()
	follow := newFollower(request, newProgress(request, std.err))
	defer follow.close()
	control, err := request.controller(folder.socket(), follow, std)
	if err != nil {
		return ending{}, err
	}
	ctx, hangUp := context.WithCancel(ctx)
	served := make(chan error, 1)
	go func() { served <- control.Run(ctx); follow.down() }()
	defer func() { hangUp(); err = errors.Join(err, <-served) }()
	if !follow.listening(ctx) {
		return ending{}, nil
	}
	worker, err := control.Spawn(ctx, request.command(python, std))
	if err != nil {
		return ending{}, &exit{codeBadInput, err}
	}
	signals.onSecond(worker.Kill)
	return follow.toTheEnd(ctx, worker), nil
}

// controller makes the private controller of a run.
func (r runRequest) controller(socket string, follow *follower, std stdio) (*controller.Controller, error) {
	return controller.New(controller.Config{
		Socket:    socket,
		Logger:    newLogger(r.flags.verbose, std.err),
		Prober:    probe.New(probe.Options{Library: r.flags.nvmlLibrary, MaxAge: time.Second}),
		Overrides: r.overrides,
		Observer:  follow,
	})
}

// newLogger logs to w if anybody wants to read it.
func newLogger(verbose bool, w io.Writer) *slog.Logger {
	if !verbose {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(w, nil))
}

// conclude prints what came out of a run.
func conclude(request runRequest, end ending, std stdio) error {
	verdict := end.judge(request.target)
	if verdict != nil && verdict.code != codeDifferent {
		return verdict
	}
	show := printText
	if request.flags.json {
		show = printJSON
	}
	if err := show(std.out, request.target, end.results(request)); err != nil {
		return fault("print the result: %w", err)
	}
	if err := end.trace(request, std.err); err != nil && verdict == nil {
		return err
	}
	if verdict != nil {
		return verdict
	}
	return nil
}
