"""Where a controller is found, and the private one: it comes when it is needed, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import optimem
from ctrl_c import Line, interrupt, lines_of
from optimem.errors import ControllerError
from optimem.wire import places, private

PATIENCE = 60.0  # seconds until a test has gone wrong
WORKER = """
import importlib.util, sys, types
found = importlib.util.find_spec("optimem")
package = sys.modules["optimem"] = types.ModuleType("optimem")  # without torch
package.__path__ = found.submodule_search_locations
from optimem.wire import places, private
places.find()
print(private._private._child.pid, flush=True)
input()
"""


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where private controllers make their folders."""
    for attachment in list(optimem._attached.values()):  # of earlier tests, which would look for a controller here
        attachment.detach()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.delenv("OPTIMEM_SOCKET", raising=False)
    private._private.end()  # that of earlier tests
    yield tmp_path
    private._private.end()
    assert list(tmp_path.iterdir()) == []


def until(happened: Callable[[], bool]) -> None:
    late = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < late
        time.sleep(0.001)


@pytest.fixture
def worker(runtime: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that has started a private controller, whose number it tells."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", WORKER]
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process


def told(worker: subprocess.Popen[str]) -> int:
    assert worker.stdout is not None
    return int(worker.stdout.readline())


def test_a_named_socket_is_blamed_where_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o700)
    monkeypatch.setenv("OPTIMEM_SOCKET", str(tmp_path / "s"))
    with pytest.raises(ControllerError, match=r"optimemctl serve --socket .*/s' or unset OPTIMEM_SOCKET"):
        places.find()


def test_where_no_socket_is_named_none_is_blamed(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private, "socket", lambda: "/nowhere/s")
    with pytest.raises(ControllerError, match="no controller answers at /nowhere/s") as raised:
        places.find()
    assert "OPTIMEM_SOCKET" not in str(raised.value)


def test_a_controller_that_cannot_serve_says_with_which_program(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPTIMEM_CTL", "/bin/false")
    with pytest.raises(ControllerError, match="/bin/false serve ended with exit code 1 before it listened; set OPTIMEM_CTL"):
        places.find()


def test_the_folder_of_a_killed_worker_goes(runtime: Path, worker: subprocess.Popen[str]) -> None:
    told(worker)
    assert len(list(runtime.iterdir())) == 1
    worker.kill()
    until(lambda: not list(runtime.iterdir()))


def test_the_folder_of_a_killed_controller_goes_with_the_worker(runtime: Path, worker: subprocess.Popen[str]) -> None:
    os.kill(told(worker), signal.SIGKILL)
    worker.communicate("\n", timeout=PATIENCE)
    assert list(runtime.iterdir()) == []


def test_the_folder_of_both_goes_at_the_next_start(runtime: Path, worker: subprocess.Popen[str]) -> None:
    controller = told(worker)
    worker.send_signal(signal.SIGSTOP)  # so that it does not notice
    os.kill(controller, signal.SIGKILL)
    worker.kill()
    worker.wait(PATIENCE)
    (left,) = runtime.iterdir()
    os.utime(left, (1, 1))
    place, channel = places.find()
    channel.close()
    assert place is places.PRIVATE
    assert not left.exists()


def test_ctrl_c_at_any_line_leaves_nothing_behind(runtime: Path) -> None:
    def come_and_go() -> None:
        private.socket()
        private._private.end()

    lines = [Line(*here, run=1) for here in lines_of(come_and_go) if here[0] == "wire/private.py"]
    assert [line for line in lines if interrupt(line, come_and_go)] == lines != []
    private.socket()
    until(lambda: len(list(runtime.iterdir())) == 1)  # those that were cut short end when their stdin does
