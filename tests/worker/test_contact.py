"""The controller ends, and another one comes: forwards go on, and the next session is found and followed."""

from __future__ import annotations

import copy
import gc
import os
import signal
import socket
import subprocess
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import models
import optimem
from optimem.life.attachment import Attachment
from optimem.life.state import State
from optimem.wire import channel, contact, private
from optimem.wire.protocol import Bye, Failure, Hello, Shrink, Stop
from same import bits

pytestmark = pytest.mark.usefixtures("card")

KILLS = 100
PATIENCE = 60.0  # seconds until a test has gone wrong


class Controllers:
    """One controller after the other at the same socket."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start one; return when it listens."""
        command = [private.binary(), "serve", "--socket", self.path, "--until-eof"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        assert self._process.stdout.readline()

    def end(self, how: signal.Signals = signal.SIGKILL) -> None:
        """End it; return when it is down."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.communicate(timeout=PATIENCE)


@pytest.fixture
def controllers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Controllers]:
    tmp_path.chmod(0o700)
    there = Controllers(str(tmp_path / "s"))
    monkeypatch.setenv("OPTIMEM_SOCKET", there.path)
    there.start()
    yield there
    there.end()


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short pauses between tries."""
    monkeypatch.setattr(contact, "_FIRST_S", 0.01)
    monkeypatch.setattr(contact, "_LONGEST_S", 0.05)


def of(model: nn.Module) -> Attachment:
    attachment = optimem._find(model)
    assert attachment is not None
    return attachment


def standing(model: nn.Module) -> str:
    status = optimem.status(model)
    assert status is not None
    return status.controller


def until(happened: Callable[[], bool], does: Callable[[], object] = lambda: time.sleep(0.001)) -> None:
    """Do something again and again until something has happened."""
    late = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < late
        does()


def until_over(model: nn.Module) -> None:
    until(lambda: of(model).session.lost)


class Paged:
    """A small model beside its plain twin: every call compares bits."""

    def __init__(self, attach: Any = optimem.page, calls: int = 5) -> None:
        self.plain = models.Stack(4).eval()
        self.model = attach(copy.deepcopy(self.plain), device="sim", vram="60%")
        self.x = models.rows()
        with torch.no_grad():
            self.wanted = bits(self.plain(self.x))
        for _ in range(calls):
            self.call()

    def call(self) -> None:
        with torch.no_grad():
            assert bits(self.model(self.x)) == self.wanted

    def until_connected(self, before: object) -> None:
        """Call until another session counts than `before`."""
        until(lambda: of(self.model).session is not before and standing(self.model) == "connected", self.call)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "ended"])
@pytest.mark.parametrize("attach", [optimem.page, optimem.fit, optimem.chunk])
def test_the_next_controller_at_the_same_socket_is_found(
    slow_cpu: None, controllers: Controllers, soon: None, attach: Any, how: signal.Signals
) -> None:
    paged = Paged(attach)
    before = of(paged.model).session
    controllers.end(how)
    until_over(paged.model)
    for _ in range(3):
        paged.call()
    assert standing(paged.model).startswith("lost: the controller ")
    controllers.start()
    paged.until_connected(before)
    after = of(paged.model).session
    for _ in range(9):  # long enough for a comparison of plans
        paged.call()
    status = optimem.status(paged.model)
    assert status is not None
    assert (status.state, status.controller) == ("steady", "connected")
    assert of(paged.model).session is after  # what is told in it fits what the controller knows
    after._take(Shrink(models.WIDTH**2 * 4, 0))
    for _ in range(2):
        paged.call()
    assert not of(paged.model)._agreed.allowance.owed()
    optimem.detach(paged.model)


@pytest.mark.parametrize("calls", [0, 1, 2, 3])
@pytest.mark.parametrize("attach", [optimem.page, optimem.fit])
def test_a_controller_may_end_at_any_stage(
    slow_cpu: None, controllers: Controllers, soon: None, attach: Any, calls: int
) -> None:
    paged = Paged(attach, calls)
    before = of(paged.model).session
    controllers.end()
    until_over(paged.model)
    paged.call()
    controllers.start()
    paged.until_connected(before)
    for _ in range(4):
        paged.call()
    assert of(paged.model)._agreed.curriculum.state is State.STEADY
    optimem.detach(paged.model)


def test_a_mix_is_still_weighed_if_the_controller_ends_before(controllers: Controllers, soon: None) -> None:
    paged = Paged(optimem.fit, calls=1)
    negotiation, before = of(paged.model)._agreed, of(paged.model).session
    if negotiation.curriculum.state is not State.WEIGHING:
        pytest.fail("the plan streams nothing")
    controllers.end()
    until_over(paged.model)
    controllers.start()
    until(lambda: standing(paged.model) == "connected")
    paged.call()
    assert of(paged.model).session is not before
    assert negotiation.agreement.measured is not None
    assert any(negotiation.agreement.measured.step_cpu_ns)
    optimem.detach(paged.model)


def test_a_worker_that_computes_nothing_is_found_again_too(controllers: Controllers, soon: None) -> None:
    paged = Paged()
    before = of(paged.model).session
    controllers.end()
    until_over(paged.model)
    controllers.start()
    until(lambda: standing(paged.model) == "connected")
    assert of(paged.model).session is before  # until the next forward begins
    paged.call()
    assert of(paged.model).session is not before
    optimem.detach(paged.model)


def test_a_hundred_controllers_one_after_the_other(controllers: Controllers, soon: None) -> None:
    paged = Paged()
    threads = threading.active_count()
    for _ in range(KILLS):
        before = of(paged.model).session
        controllers.end()
        paged.call()
        controllers.start()
        paged.until_connected(before)
    optimem.detach(paged.model)
    until(lambda: threading.active_count() < threads)


def test_a_private_controller_is_started_anew(soon: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    private._private.end()  # that of earlier tests
    paged = Paged()
    before, child, folder = of(paged.model).session, private._private._child, Path(private.socket()).parent
    assert child is not None
    assert folder.parent == tmp_path
    child.kill()
    paged.until_connected(before)
    assert private._private._child is not child
    assert not folder.exists()
    optimem.detach(paged.model)
    private._private.end()
    assert list(tmp_path.iterdir()) == []


def test_a_controller_that_does_not_answer_holds_no_forward_up(controllers: Controllers, soon: None) -> None:
    taken = torch.empty(1 << 20, dtype=torch.uint8, device="simgpu")
    paged = Paged(calls=0)
    del taken
    for _ in range(5):
        paged.call()
    controllers.end()
    os.unlink(controllers.path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(controllers.path)
        listener.listen()
        until_over(paged.model)
        silent, _ = listener.accept()
        with silent:
            hello = channel.Channel(silent).receive(PATIENCE)
            assert isinstance(hello, Hello)
            _, measured = of(paged.model).told()
            assert measured is not None
            assert hello.device.free_bytes == measured.free_bytes  # and not what was free when the model came
            for _ in range(3):
                paged.call()
            assert standing(paged.model).startswith("lost: ")
    optimem.detach(paged.model)
    os.unlink(controllers.path)


def test_why_a_try_failed_is_told(controllers: Controllers, soon: None) -> None:
    paged = Paged()
    controllers.end()
    os.unlink(controllers.path)
    until(lambda: "no controller answers at" in standing(paged.model))
    assert standing(paged.model).startswith("lost: the controller is gone (")
    assert f"optimemctl serve --socket {controllers.path}" in standing(paged.model)
    assert "; next try in 0." in standing(paged.model)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(controllers.path)
        listener.listen()
        busy, _ = listener.accept()
        other = channel.Channel(busy)
        other.receive(PATIENCE)
        other.send(Failure("busy", "64 sessions"))
        until(lambda: "busy: 64 sessions" in standing(paged.model))
        other.close()
    paged.call()
    optimem.detach(paged.model)
    os.unlink(controllers.path)


@pytest.mark.parametrize("lets_go", ["detaches", "drops"])
def test_nobody_is_looked_for_once_the_model_is_let_go(controllers: Controllers, soon: None, lets_go: str) -> None:
    paged = Paged()
    controllers.end()
    until(lambda: "next try" in standing(paged.model))
    if lets_go == "detaches":
        optimem.detach(paged.model)
    else:
        attachment = weakref.ref(of(paged.model))
        del paged.model
        until(lambda: attachment() is None, gc.collect)
    until(lambda: not any(thread.name == "optimem-search" for thread in threading.enumerate()))


@pytest.mark.parametrize("message", [Stop("enough"), Bye("the night begins")], ids=["stop", "bye"])
def test_after_a_stop_nobody_is_looked_for_and_after_a_bye_the_next_one_is(
    controllers: Controllers, soon: None, message: Any
) -> None:
    paged = Paged()
    of(paged.model).session._take(message)
    over = of(paged.model).session
    controllers.end()
    over._threads[0].join(PATIENCE)
    if isinstance(message, Stop):
        assert standing(paged.model) == "lost: the controller stopped it (enough)"
    else:
        assert standing(paged.model).startswith("lost: the controller said bye (the night begins); ")
    paged.call()
    optimem.detach(paged.model)


def test_a_session_that_was_found_and_lost_again_is_followed_by_another(controllers: Controllers, soon: None) -> None:
    paged = Paged()
    for _ in range(3):
        controllers.end()
        until(lambda: standing(paged.model).startswith("lost: "))
        controllers.start()
        until(lambda: standing(paged.model) == "connected")  # found, and not taken up
    paged.call()
    assert standing(paged.model) == "connected"
    optimem.detach(paged.model)


def test_versions_of_plans_begin_anew(controllers: Controllers, soon: None) -> None:
    paged = Paged()
    before, agreed = of(paged.model).session, of(paged.model)._agreed
    before.tell = lambda message: None  # type: ignore[method-assign]  # a controller knows no plan 9 that it has not sent
    for _ in range(20):  # one that it has sent meanwhile may come in between
        before._take(replace(agreed.agreement.plan, version=9))
        paged.call()
        if agreed.agreement.plan.version == 9:
            break
    assert agreed.agreement.plan.version == 9
    controllers.end()
    until_over(paged.model)
    controllers.start()
    paged.until_connected(before)
    after = of(paged.model).session
    assert agreed.agreement.plan.version < 9
    of(paged.model).report()
    assert after.ask_for_plan(*of(paged.model).told()) is not None  # type: ignore[arg-type]
    assert of(paged.model).session is after
    optimem.detach(paged.model)


def test_a_session_that_knows_another_recording_gives_way_to_one_that_knows_this_one(
    controllers: Controllers, soon: None
) -> None:
    paged = Paged()
    before, ours, agreed = of(paged.model).session, of(paged.model)._contact, of(paged.model)._agreed
    controllers.end()
    until_over(paged.model)
    controllers.start()
    until(lambda: standing(paged.model) == "connected")
    found = ours._latest()
    agreed.agreement = replace(agreed.agreement, manifest=replace(agreed.agreement.manifest))
    paged.call()
    assert of(paged.model).session is before
    assert found.ending == "this side closed it (the model was recorded anew)"
    paged.until_connected(before)
    optimem.detach(paged.model)


def test_the_users_own_controller_is_looked_for_at_its_place(
    controllers: Controllers, soon: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPTIMEM_SOCKET")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    controllers.end()
    controllers.path = channel.default_socket()
    controllers.start()
    paged = Paged()
    before = of(paged.model).session
    controllers.end()
    os.unlink(controllers.path)
    until(lambda: f"no controller answers at {controllers.path}" in standing(paged.model))
    assert "OPTIMEM_SOCKET" not in standing(paged.model)
    controllers.start()
    paged.until_connected(before)
    optimem.detach(paged.model)


def test_pauses_grow_and_differ(controllers: Controllers, monkeypatch: pytest.MonkeyPatch) -> None:
    paged = Paged(calls=0)
    ours, now = of(paged.model)._contact, 1000.0
    monkeypatch.setattr(contact.time, "monotonic", lambda: now)
    pauses = []
    for _ in range(20):
        ours._plan_next_try()
        pauses.append(ours._next - now)
    most = [min(contact._LONGEST_S, contact._FIRST_S * 2**tried) for tried in range(20)]
    assert all(limit / 2 <= pause <= limit + 1e-9 for pause, limit in zip(pauses, most, strict=True))
    assert most[-1] == contact._LONGEST_S
    assert len(set(pauses[-5:])) == 5
    monkeypatch.undo()
    optimem.detach(paged.model)
