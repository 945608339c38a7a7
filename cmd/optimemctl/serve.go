package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/optimem/optimem/controller"
	"github.com/optimem/optimem/ipc"
	"github.com/optimem/optimem/planner/probe"
)

// serveFlags are the flags of serve.
type serveFlags struct {
	socket, library            string
	untilEOF, verbose, private bool
}

func newServe(std stdio) *cobra.Command {
	var flags serveFlags
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Hold a controller for workers that were started by somebody else",
		Long: `Listen for workers that somebody else started: each Python process that calls optimem.page or
optimem.chunk and finds this socket. It prints "listening on PATH" as soon as workers can dial, and logs to stderr.

A worker finds the socket by OPTIMEM_SOCKET, or where that is not set at the default path. It keeps its plan
and goes on when this command ends. SIGINT and SIGTERM end it in good order, with exit code 0.`,
		Example: `  optimemctl serve
  optimemctl serve --socket /run/user/1000/mine/s --until-eof`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkLibrary(flags.library); err != nil {
				return misuse(cmd.Root(), []string{"serve"}, err)
			}
			return serve(cmd.Context(), flags, std)
		},
	}
	cmd.Flags().StringVar(&flags.socket, "socket", "", "`PATH` to listen on (default: the user's own, where workers look)")
	cmd.Flags().BoolVar(&flags.private, "private", false, "listen in a new folder of its own, which goes with the command")
	cmd.MarkFlagsMutuallyExclusive("socket", "private")
	cmd.Flags().BoolVar(&flags.untilEOF, "until-eof", false, "end when stdin is closed, and log nothing: for a parent that holds the other end")
	cmd.Flags().BoolVar(&flags.verbose, "verbose", false, "log with --until-eof too")
	cmd.Flags().StringVar(&flags.library, "nvml-library", "", "`FILE` of the NVML library to read the cards with")
	return cmd
}

// serve holds a controller until a signal comes or, where asked, stdin ends.
func serve(ctx context.Context, flags serveFlags, std stdio) (err error) {
	if flags.private {
		var folder runtimeDir
		if folder, err = privateDir(); err != nil {
			return &exit{codeBadInput, err}
		}
		defer func() { err = errors.Join(err, folder.remove()) }()
		flags.socket = folder.socket()
	}
	return serveAt(ctx, flags, std)
}

// serveAt holds a controller at the socket of the flags.
func serveAt(ctx context.Context, flags serveFlags, std stdio) error {
	socket, err := socketOr(flags.socket)
	if err != nil {
		return &exit{codeBadInput, err}
	}
	ctx, signals := guarded(ctx)
	defer signals.release()
	ctx, end := context.WithCancel(ctx)
	defer end()
	if flags.untilEOF {
		go func() {
			_, _ = io.Copy(io.Discard, std.in)
			end()
		}()
	}
	listening := false // written before Run returns
	control, err := controller.New(controller.Config{
		Socket:   socket,
		Logger:   newLogger(flags.verbose || !flags.untilEOF, std.err),
		Prober:   probe.New(probe.Options{Library: flags.library, MaxAge: time.Second}),
		Observer: announce(std.out, &listening),
	})
	if err != nil {
		return fault("%w", err)
	}
	err = control.Run(ctx)
	switch {
	case err == nil:
		return nil
	case listening:
		return fault("%w", err)
	}
	return &exit{codeBadInput, err} // the path is taken, or not one to listen on
}

// announce tells a parent that waits for it where workers can dial.
func announce(w io.Writer, listening *bool) controller.Observer {
	return controller.ObserverFunc(func(event controller.Event) {
		if e, ok := event.(controller.Listening); ok {
			*listening = true
			_, _ = fmt.Fprintf(w, "listening on %s\n", e.Path)
		}
	})
}

func socketOr(path string) (string, error) {
	if path != "" {
		return path, nil
	}
	return ipc.DefaultSocket()
}
