"""Ctrl-C in the model's code, in a call that did not begin at the root, in other threads: every call after it is right."""

from __future__ import annotations

import copy
import gc
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from types import FrameType
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

import models
import optimem
from ctrl_c import TimeLimit, _leaves_a_block, stack
from optimem.seams.undo import Undo
from optimem.seams.whole import Whole
from same import bits


class Halves(nn.Module):
    """Is called by its methods, never by its forward, as autoencoders are."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = stack(5), stack(5)

    def encode(self, x: torch.Tensor) -> Any:
        return self.first(x)

    def decode(self, x: torch.Tensor) -> Any:
        return self.second(x)


@pytest.mark.trap(4)
@pytest.mark.parametrize("vram", ["40%", "120%"])
@pytest.mark.parametrize("at", [0, 4])
def test_ctrl_c_in_a_call_that_is_not_the_roots_leaves_a_working_model(card: torch.device, at: int, vram: str) -> None:
    plain, x = Halves().eval(), models.rows()
    model = optimem.page(copy.deepcopy(plain), card, vram=vram)
    with torch.no_grad():
        for call in range(8):
            model.first[2].armed = call == at
            if model.first[2].armed:
                with pytest.raises(KeyboardInterrupt):
                    model.encode(x)
            assert bits(model.decode(x)) == bits(plain.decode(x))
            assert bits(model.encode(x)) == bits(plain.encode(x))


@pytest.mark.trap(4)
@pytest.mark.parametrize("index", range(5))
def test_weights_that_are_written_to_after_ctrl_c_are_refused(
    card: torch.device, monkeypatch: pytest.MonkeyPatch, index: int
) -> None:
    """Some were on the card then, and what is written there is lost."""
    monkeypatch.delenv("OPTIMEM_POISON", raising=False)  # torch refuses to write to the NaN that stands for released bytes
    plain, x = stack(5), models.rows()
    model = optimem.page(copy.deepcopy(plain), card, vram="40%")
    with torch.no_grad():
        for _ in range(4):
            model(x)
        model[2].armed = True
        with pytest.raises(KeyboardInterrupt):
            model(x)
        torch.accelerator.synchronize()
        for each in (plain, model):
            each[index].weight.mul_(0.5)
        for _ in range(2):
            with pytest.raises(optimem.BadInput, match=r"written to after .* cut short"):
                model(x)
        optimem.detach(model)
        model.load_state_dict(plain.state_dict())
        assert bits(optimem.page(model, card, vram="40%")(x)) == bits(plain(x))


def test_a_signal_handler_may_raise_anywhere_while_work_runs_whole() -> None:
    """In Python's own code too."""
    lines = 0

    def until(stop: int) -> Any:
        count = 0

        def trace(frame: FrameType, event: str, argument: Any) -> Any:
            nonlocal count
            if event != "line" or _leaves_a_block(frame):
                return trace
            count += 1
            if count == stop:
                raise TimeLimit
            return trace

        return trace

    while True:
        lines += 1
        whole, done = Whole(), []
        before = sys.gettrace()
        sys.settrace(until(lines))
        try:
            whole.run(lambda done=done: done.append("first"))
            break
        except TimeLimit:
            pass
        finally:
            sys.settrace(before)
        whole.settle()
        whole.run(lambda done=done: done.append("second"))
        assert done in (["second"], ["first", "second"])
    assert lines > 5


@pytest.mark.trap(4)
def test_what_is_loaded_after_ctrl_c_is_what_the_next_call_computes_with(card: torch.device) -> None:
    plain, other, x = stack(8), stack(8), models.rows()
    model = optimem.page(plain, card, vram="60%")
    with torch.no_grad():
        model(x)
        model(x)
        model[4].armed = True
        with pytest.raises(KeyboardInterrupt):
            model(x)
        model.load_state_dict(other.state_dict())
        assert bits(model(x)) == bits(other(x))


@pytest.mark.trap(4)
def test_a_change_of_type_after_ctrl_c_is_refused(card: torch.device) -> None:
    model, x = optimem.page(stack(8), card, vram="60%"), models.rows()
    with torch.no_grad():
        model(x)
        model[4].armed = True
        with pytest.raises(KeyboardInterrupt):
            model(x)
        model.half()
        for _ in range(2):
            with pytest.raises(optimem.BadInput, match="was given another dtype"):
                model(x)


class Waits(nn.Module):
    """Waits in its forward, when told to, until `go` is set; sets `here` meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.told, self.here, self.go = False, threading.Event(), threading.Event()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.told:
            self.here.set()
            assert self.go.wait(60)
        return x


def test_detaching_waits_for_a_forward_in_another_thread(card: torch.device) -> None:
    pause, plain, x = Waits(), stack(8), models.rows()
    model = optimem.page(nn.Sequential(copy.deepcopy(plain), pause, copy.deepcopy(plain)).eval(), card, vram="60%")
    outputs = []

    def call() -> None:
        with torch.no_grad():
            outputs.append(model(x))

    for _ in range(3):
        call()
    pause.told = True
    caller = threading.Thread(target=call)
    caller.start()
    assert pause.here.wait(60)
    threading.Timer(0.7, pause.go.set).start()
    optimem.detach(model)
    caller.join(60)
    pause.told = False
    call()
    assert all(bits(output) == bits(outputs[0]) for output in outputs)
    assert len(outputs) == 5


def test_detaching_in_a_thread_for_which_the_forward_waits_is_refused(
    card: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[optimem.BadInput] = []

    class Detaches(models.Stack):
        def forward(self, x: torch.Tensor) -> Any:
            with ThreadPoolExecutor() as pool:
                error = pool.submit(optimem.detach, self).exception()
            refused.extend([error] if isinstance(error, optimem.BadInput) else [])
            return super().forward(x)

    monkeypatch.setattr("optimem.seams.gate._DETACH_LOOKS", 2)
    plain, x = Detaches().eval(), models.rows()
    model = optimem.page(copy.deepcopy(plain), card, vram="60%")
    with torch.no_grad():
        for _ in range(3):
            assert bits(model(x)) == bits(plain(x))
        assert len(refused) == 3
        optimem.detach(model)
        assert optimem.status(model) is None


def test_detaching_inside_of_a_forward_is_possible(card: torch.device) -> None:
    class Detaches(models.Stack):
        def forward(self, x: torch.Tensor) -> Any:
            x = self.layers[0](x)
            optimem.detach(self)
            return super().forward(x.cpu())

    plain, x = Detaches().eval(), models.rows()
    model = optimem.page(copy.deepcopy(plain), card, vram="60%")
    with torch.no_grad():
        assert bits(model(x)) == bits(plain(x))
    assert optimem.status(model) is None


def test_a_call_that_waited_while_the_model_was_detached_is_the_plain_models(card: torch.device) -> None:
    plain, x = stack(8), models.rows()
    model = optimem.page(copy.deepcopy(plain), card, vram="60%")
    with torch.no_grad():
        wanted = bits(plain(x))
        for _ in range(3):
            model(x)
    outputs: list[torch.Tensor] = []

    def call() -> None:
        with torch.no_grad():
            outputs.append(model(x))

    attachment = optimem._find(model)
    assert attachment is not None
    leave = attachment.close

    def close(reason: str) -> None:
        caller.start()
        time.sleep(0.2)  # it comes to the gate, whatever it does before
        leave(reason)

    caller = threading.Thread(target=call)
    attachment.close = close  # type: ignore[method-assign]
    optimem.detach(model)
    caller.join(60)
    assert bits(outputs) == wanted


def modes() -> list[Any]:
    """The modes on this thread's stacks."""
    return [*torch.overrides._get_current_function_mode_stack(), *_get_current_dispatch_mode_stack()]


def interrupted(card: torch.device, calls: int, model: nn.Sequential | None = None, mode: str = "page") -> nn.Sequential:
    """Return `model`, or one of our own, paged, that has made so many calls, and one more that was cut short."""
    model = getattr(optimem, mode)(model or stack(8), device=card, vram="60%")
    with torch.no_grad():
        for _ in range(calls):
            model(models.rows())
        model[4].armed = True
        with pytest.raises(KeyboardInterrupt):
            model(models.rows())
    return model


@pytest.mark.trap(4)
@pytest.mark.parametrize("calls", [0, 1])
def test_what_watched_an_interrupted_forward_does_nothing_any_more(card: torch.device, calls: int) -> None:
    model = interrupted(card, calls)
    attachment = optimem._find(model)
    assert attachment is not None
    before = attachment._tied.moved
    for parameter in model.parameters():
        parameter.sum()
    assert attachment._tied.moved == before
    with torch.no_grad():
        model(models.rows())
    assert not modes()


@pytest.mark.trap(4)
@pytest.mark.parametrize("calls", [0, 1, 5])
@pytest.mark.parametrize("mode", ["page", "chunk"])
def test_a_model_that_was_interrupted_can_be_collected(card: torch.device, slow_cpu: None, calls: int, mode: str) -> None:
    model = interrupted(card, calls, mode=mode)
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None
    assert torch.is_autocast_cache_enabled()
    torch.ones(1) + 1
    other = optimem.page(stack(4), card, vram="60%")
    with torch.no_grad():
        other(models.rows())
    assert not modes()


@pytest.mark.trap(4)
@pytest.mark.parametrize("calls", [0, 1, 5])
@pytest.mark.parametrize("then", ["call", "detach"])
@pytest.mark.parametrize("mode", ["page", "chunk"])
def test_after_ctrl_c_another_thread_may_go_on(card: torch.device, slow_cpu: None, calls: int, then: str, mode: str) -> None:
    plain, x = stack(8), models.rows()
    with torch.no_grad():
        wanted, outputs = bits(plain(x)), []
    model = interrupted(card, calls, plain, mode)

    def go_on() -> None:
        with torch.no_grad():
            if then == "detach":
                optimem.detach(model)
            outputs.append(model(x))

    thread = threading.Thread(target=go_on)
    thread.start()
    thread.join(60)
    with torch.no_grad():
        outputs += [model(x), optimem.detach(model)(x)]
    assert all(bits(output) == wanted for output in outputs)
    assert len(outputs) == 3
    assert not any(mode.owner() for mode in modes())
    with torch.no_grad():
        optimem.page(stack(4), card, vram="60%")(x)
    assert not modes()
    assert torch.is_autocast_cache_enabled()


@pytest.mark.parametrize("error", [KeyboardInterrupt, TimeLimit])
def test_a_step_of_the_undo_list_that_is_cut_short_is_run_again(error: type[BaseException]) -> None:
    done: list[str] = []

    def cut_short_once() -> None:
        done.append("begun")
        if done.count("begun") == 1:
            raise error
        done.append("ended")

    undo = Undo()
    for step in (lambda: done.append("last"), cut_short_once, lambda: done.append("first")):
        undo.add(step)
    with pytest.raises(error):
        undo.run()
    undo.run()
    assert done == ["first", "begun", "begun", "ended", "last"]
