"""A forked child leaves the parent's controller, session and model alone, whatever it does."""

from __future__ import annotations

import os
import select
import subprocess
import sys

import pytest

PARENT = """
import gc, os, sys, torch, optimem
from optimem.wire import private
torch.set_num_threads(1)
torch.set_grad_enabled(False)

def new():
    return torch.nn.Sequential(*[torch.nn.Linear(64, 64) for _ in range(6)]).eval()

def fork(does):
    child = os.fork()
    if child == 0:
        exec(does, globals())
    return child

model, x = optimem.page(new(), device="sim", vram="50%"), torch.randn(2, 64)
expected = [model(x).cpu() for _ in range(4)][-1]
controller, session = private._private._child, optimem._find(model).session.id
"""

LOOKS = """
for name, does in CHILDREN.items():
    _, status = os.waitpid(fork(does), 0)
    assert torch.equal(model(x).cpu(), expected), name
    optimem._find(model).report()
    other = optimem.page(new(), device="sim", vram="50%")
    other(x)
    assert controller.poll() is None and private._private._child is controller, name
    assert (optimem.status(model).controller, optimem._find(model).session.id) == ("connected", session), name
    assert os.path.exists(private.socket()), name
    print(name, os.waitstatus_to_exitcode(status), flush=True)
"""

REFUSAL = (
    "was forked from the one that attached the model, and the card's memory does not come along; start the process with"
)
CHILDREN = {
    "exits": "sys.exit(0)",
    "ends at once": "os._exit(0)",
    "drops the model": "del model; gc.collect(); sys.exit(0)",
    "detaches": "optimem.detach(model); sys.exit(not torch.allclose(model(x), expected))",
    "asks how it stands": "sys.exit(optimem.status(model).controller != "
    "'lost: it belongs to the process that this one was forked from')",
    "reports": "optimem._find(model).report(); sys.exit(0)",
    "attaches a model of its own": "own = optimem.page(new(), device='sim'); own(x); "
    "sys.exit(optimem.status(own).controller != 'connected')",
    "calls, which is refused": "try:\n    model(x)\nexcept optimem.BadInput as error:\n"
    f"    sys.exit({REFUSAL!r} not in str(error))",
    "closes": "optimem._find(model).close('done'); sys.exit(0)",
    "forks again": "os.fork() or optimem.detach(model); sys.exit(0)",
}


def environment() -> dict[str, str]:
    """Return the environment of a parent. Python itself warns of forks in a process with threads."""
    ours = {"PYTHONPATH": os.pathsep.join(sys.path), "SIMGPU_CARD": f"forks-{os.getpid()}", "PYTHONWARNINGS": "ignore"}
    return {**os.environ, **ours}


def run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program], env=environment(), capture_output=True, text=True, timeout=120, check=False
    )


def test_the_parent_notices_nothing() -> None:
    done = run(f"{PARENT}\nCHILDREN = {CHILDREN!r}\n{LOOKS}")
    assert (done.stdout.splitlines(), done.stderr) == ([f"{name} 0" for name in CHILDREN], "")


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="only Linux lets us wait for the end of any process")
def test_the_controller_ends_with_the_parent_and_not_with_the_child() -> None:
    """The child holds no end of the controller's pipe."""
    child = "os.setsid(); os.read(0, 1); os._exit(0)"  # it lives until this test closes its stdin
    program = f"{PARENT}\nfork({child!r})\nprint(controller.pid, flush=True)\nos._exit(0)"
    parent = subprocess.Popen(
        [sys.executable, "-c", program], env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdin is not None
    assert parent.stdout is not None
    try:
        controller = int(parent.stdout.readline())
        parent.wait(timeout=60)
        until_ended(controller)
    finally:
        parent.stdin.close()
        parent.stdout.close()


def until_ended(process: int) -> None:
    """Wait until a process that is no child of ours has ended."""
    try:
        handle = os.pidfd_open(process)
    except ProcessLookupError:
        return
    ended, _, _ = select.select([handle], [], [], 60)
    os.close(handle)
    assert ended
