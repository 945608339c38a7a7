"""The worker's entry point: parse, run, map errors to exit codes. `optimemctl run` starts it.

Exit codes: 0 done, 1 the program failed, 2 bad input, 130 interrupted.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import traceback
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command in `argv` and return the exit code."""
    order = _parse(argv)
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    try:
        _run(order)
    except KeyboardInterrupt:
        return 130
    except SystemExit as leave:
        return leave.code if isinstance(leave.code, int) else int(leave.code is not None)
    except Exception as error:
        return _fail(error)
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="optimem_worker", description=__doc__)
    commands = parser.add_subparsers(required=True)
    run = commands.add_parser("run", help="run a model under a plan, or a script that attaches its own")
    run.add_argument("target", help="torchvision:NAME, file.py:factory, or script.py")
    run.add_argument("--device", default="auto")
    run.add_argument("--import", dest="modules", action="append", default=[], metavar="MODULE")
    run.add_argument("--mode", choices=("page", "chunk", "auto"), default="page")
    run.add_argument("--forwards", type=int, default=5)
    run.add_argument("--input", default=None, metavar="PHOTO")
    run.add_argument("--size", default="224x224", metavar="WxH")
    run.add_argument("--seed", type=int, default=0)
    words = list(sys.argv[1:] if argv is None else argv)
    end = words.index("--") if "--" in words else len(words)
    order = parser.parse_args(words[:end])
    order.arguments = words[end + 1 :]  # arguments after -- are for script.py
    return order


def _run(order: argparse.Namespace) -> None:
    import _thread

    from optimem.drive import run
    from optimem.wire import session

    run.import_modules(order.modules)
    if order.target.endswith(".py"):
        if order.device != "auto":
            os.environ["OPTIMEM_DEVICE"] = order.device
        session.on_stop = lambda reason: _thread.interrupt_main()
        run.run_script(order.target, order.arguments)
        return
    width, height = (int(side) for side in order.size.split("x"))
    run.run_model(
        run.Order(
            target=order.target,
            device=order.device,
            mode=order.mode,
            forwards=order.forwards,
            photo=order.input,
            size=(width, height),
            seed=order.seed,
        )
    )


def _fail(error: Exception) -> int:
    """Tell the error, to the controller if one listens and on stderr."""
    from optimem import OptimemError
    from optimem.wire import session

    bad_input = isinstance(error, ValueError) and isinstance(error, OptimemError)
    if bad_input or isinstance(error, OptimemError):
        print(f"optimem: {error}", file=sys.stderr)
    else:
        traceback.print_exc()
    session.announce_failure("bad_input" if bad_input else "internal", str(error) or type(error).__name__)
    return 2 if bad_input else 1


if __name__ == "__main__":
    sys.exit(main())
