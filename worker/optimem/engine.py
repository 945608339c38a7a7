"""What the two modes do at the borders of a forward. `attachment` decides when; an engine knows how.

`PageEngine`: everything computes on the device. `ChunkEngine`: islands compute on the device, the rest on the CPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import nn

from . import moving
from .calibrate import Link, measure_crossings, measure_link
from .device import Device, HostClock
from .islands import enclosed, find_islands, is_under
from .masters import Masters
from .pager import Pager
from .protocol import Plan
from .recorder import Recorder, Recording
from .touch import Touched
from .units import Inventory, Span, Unit, aligned

Known = dict[Span, dict[str, None]]


class Engine(Protocol):
    """A mode."""

    peak: int  # most device bytes seen while the device's own peak was in use for steps

    @property
    def home(self) -> torch.device:
        """Where data of an outermost call starts and ends."""
        ...

    @property
    def clock(self) -> Device:
        """What times the recorded forward."""
        ...

    @property
    def moved(self) -> int:
        """Weight bytes brought to the device so far."""
        ...

    @property
    def misses(self) -> int:
        """Pages fetched on touch so far."""
        ...

    def record(self, known: Known, budget: int) -> Recorder:
        """Return a recorder for the next outermost call."""
        ...

    def end_step(self, recorder: Recorder) -> None:
        """Note what is to be known of the step that ends at the coming border."""
        ...

    def end_recording(self) -> None:
        """Let everything go that the recorded call left on the device."""
        ...

    def measure_link(self, budget: int) -> Link:
        """Measure the way from RAM to the device."""
        ...

    def follow(self, plan: Plan, units: Sequence[Unit], recording: Recording) -> None:
        """Follow `plan` from now on."""
        ...

    def tied(self, *, every: bool) -> set[str]:
        """Return the paths of the modules whose borders matter; `every` asks for those that only matter for timing."""
        ...

    def begin(self) -> None:
        """Begin an outermost call under the plan."""
        ...

    def enter(self, path: str, args: Any, kwargs: Any, *, root: bool) -> tuple[Any, Any, int | None]:
        """Make module `path` ready; return its arguments and the copy that was waited for."""
        ...

    def leave(self, path: str, output: Any) -> Any:
        """Let module `path` go; return its output."""
        ...

    def finish(self, *, lap: bool) -> None:
        """End an outermost call."""
        ...

    def shrink(self, nbytes: int, *, at_start: bool) -> int | None:
        """Give device bytes back now and return how many; None where it must wait for another border. `at_start` tells that
        nothing of the model runs yet."""
        ...

    def refresh(self) -> None:
        """The masters have changed: bring what is on the device again."""
        ...

    def storages(self) -> set[int]:
        """Return the storage pointers of device bytes that weights look into."""
        ...

    def close(self) -> None:
        """Give all device memory back."""
        ...

    def island_times(self) -> list[int]:
        """Return device ns per step where this mode measures them itself, else nothing."""
        ...


class PageEngine:
    """Pages under a plan; fetch on touch while recording."""

    def __init__(self, device: Device, masters: Masters, inventory: Inventory, baseline: int) -> None:
        self.home = device.torch
        self.clock = device
        self._device = device
        self._masters = masters
        self._fixed = inventory.fixed
        self._baseline = baseline
        self._touched = Touched(device, masters)
        self._pager: Pager | None = None
        self._before = (0, 0)
        self.peak = 0
        _send(self._fixed, self.home)

    @property
    def moved(self) -> int:
        pager = self._pager.bytes_moved if self._pager else 0
        return self._before[0] + self._touched.moved + pager

    @property
    def misses(self) -> int:
        return self._before[1] + (self._pager.misses if self._pager else 0)

    def record(self, known: Known, budget: int) -> Recorder:
        self._close_pager()
        held: set[str] = set()
        reads: Known = known

        def bring(span: Span) -> None:
            self.end_step(recorder)
            held.clear()
            held.update(recorder.stack)
            self._touched.make_room(span, budget, lambda old: not held.isdisjoint(reads.get(old, ())))
            self._touched.fetch(span, budget - self._touched.nbytes)
            self._device.reset_peak()

        recorder = Recorder(self._device, self._lookup, bring, known, lambda span: span not in self._touched)
        reads = recorder.reads
        self._device.reset_peak()
        return recorder

    def end_step(self, recorder: Recorder) -> None:
        peak = self._device.peak() - self._baseline
        self.peak = max(self.peak, peak)
        recorder.size_of_step(max(0, peak - self._touched.nbytes))
        self._device.reset_peak()

    def end_recording(self) -> None:
        self._touched.drop_all()
        self._masters.come_home()
        self._touched.forget()
        self._device.give_back()

    def measure_link(self, budget: int) -> Link:
        return measure_link(self._device, self._masters.slab, budget)

    def follow(self, plan: Plan, units: Sequence[Unit], recording: Recording) -> None:
        self._close_pager()
        order = [span for page in plan.pages for index in page.units for span in units[index].spans]
        self._device.settle()
        self._masters.arrange(order)
        self._pager = Pager(self._device, self._masters, plan, units, recording)

    def tied(self, *, every: bool) -> set[str]:
        return self._pager.readers(every=every) if self._pager else set()

    def begin(self) -> None:
        if self._pager:
            self._pager.begin()

    def enter(self, path: str, args: Any, kwargs: Any, *, root: bool) -> tuple[Any, Any, int | None]:
        waited = self._pager.acquire(path, next_lap=not root) if self._pager else None
        return args, kwargs, waited

    def leave(self, path: str, output: Any) -> Any:
        if self._pager:
            self._pager.release(path)
        return output

    def finish(self, *, lap: bool) -> None:
        if self._pager:
            self._pager.finish(lap=lap)

    def shrink(self, nbytes: int, *, at_start: bool) -> int | None:
        if self._pager is None:
            return 0
        step = None if at_start else self._pager.step()
        return None if step is None and not at_start else self._pager.shrink(nbytes, step)

    def refresh(self) -> None:
        if self._pager:
            self._pager.refresh()

    def storages(self) -> set[int]:
        return self._pager.storages() if self._pager else self._touched.storages()

    def close(self) -> None:
        self.end_recording()
        self._close_pager()
        _send(self._fixed, torch.device("cpu"))

    def island_times(self) -> list[int]:
        return []

    def _close_pager(self) -> None:
        if self._pager is not None:
            self._before = (self._before[0] + self._pager.bytes_moved, self._before[1] + self._pager.misses)
            self._pager.close()
            self._pager = None

    def _lookup(self, tensor: torch.Tensor) -> Span | None:
        return self._masters.span_of(tensor) or self._touched.span_of(tensor)


class ChunkEngine:
    """Islands on the device, the rest on the CPU. The recorded forward runs on the CPU."""

    def __init__(self, device: Device, masters: Masters, inventory: Inventory, model: nn.Module) -> None:
        self.home = torch.device("cpu")
        self.clock = HostClock(device)
        self.moved = 0
        self.misses = 0
        self.peak = 0
        self._device = device
        self._masters = masters
        self._model = model
        self._fixed_bytes = inventory.fixed_bytes
        self._blocks: dict[Span, torch.Tensor] = {}
        self._looks: dict[str, list[tuple[nn.Parameter, torch.Tensor]]] = {}
        self._spans: dict[str, list[Span]] = {}
        self._fixed: list[torch.Tensor] = []
        self._entered: dict[str, list[int]] = {}
        self._times: dict[str, int] = {}
        self._recording: Recording | None = None

    def record(self, known: Known, budget: int) -> Recorder:
        self._clear()
        return Recorder(self.clock, self._masters.span_of, lambda span: None, known, lambda span: False)

    def end_step(self, recorder: Recorder) -> None:
        recorder.size_of_step(recorder.live.take_peak() + self._fixed_bytes)

    def end_recording(self) -> None:
        return None

    def measure_link(self, budget: int) -> Link:
        return measure_crossings(self._device, budget)

    def follow(self, plan: Plan, units: Sequence[Unit], recording: Recording) -> None:
        self._clear()
        self._recording = recording
        chosen = {index for page in plan.pages if page.placement == "resident" for index in page.units}
        islands = find_islands(recording.called, units, chosen)
        for index in sorted(enclosed(units, chosen, islands)):
            for span in units[index].spans:
                island = next(path for path in islands if is_under(span.owner, path))
                self._bring(span, island)
        for path in islands:
            self._looks.setdefault(path, [])
            self._fixed.extend(_buffers(self._model.get_submodule(path)))
        _send(self._fixed, self._device.torch)

    def tied(self, *, every: bool) -> set[str]:
        return set(self._looks)

    def begin(self) -> None:
        return None

    def enter(self, path: str, args: Any, kwargs: Any, *, root: bool) -> tuple[Any, Any, int | None]:
        look = self._looks.get(path)
        if look is None:
            return args, kwargs, None
        for parameter, view in look:
            parameter.data = view
        args, kwargs = moving.move(args, self._device.torch), moving.move(kwargs, self._device.torch)
        self._entered.setdefault(path, []).append(self._device.now_ns())
        return args, kwargs, None

    def leave(self, path: str, output: Any) -> Any:
        if path not in self._looks:
            return output
        entered = self._entered.get(path)
        if entered:
            self._device.settle()  # what crosses is counted apart, and would wait for the device anyway
            self._times[path] = self._device.now_ns() - entered.pop()
        output = moving.move(output, self.home)
        if not entered:
            self._masters.return_home(self._spans.get(path, ()))
        self.peak = max(self.peak, self._device.peak())
        return output

    def finish(self, *, lap: bool) -> None:
        self._entered.clear()
        for spans in self._spans.values():
            self._masters.return_home(spans)

    def shrink(self, nbytes: int, *, at_start: bool) -> int | None:
        freed = 0
        for path in reversed(list(self._looks)):
            if freed < nbytes and not self._entered.get(path):
                freed += self._leave_to_cpu(path)
        self._device.give_back()
        return freed

    def _leave_to_cpu(self, path: str) -> int:
        """Let an island sink: from now on the CPU computes it. Return the bytes that this frees."""
        spans = self._spans.pop(path, [])
        self._masters.return_home(spans)
        del self._looks[path]
        _send(_buffers(self._model.get_submodule(path)), self.home)
        return sum(self._blocks.pop(span).numel() for span in spans)

    def refresh(self) -> None:
        for span, block in self._blocks.items():
            block.copy_(self._masters.page([span]))

    def storages(self) -> set[int]:
        return {block.untyped_storage().data_ptr() for block in self._blocks.values()}

    def close(self) -> None:
        self._clear()

    def island_times(self) -> list[int]:
        """Share the latest time of every island out over its steps, in proportion to their time on the CPU."""
        if self._recording is None:
            return []
        return _shared_out(self._recording, self._times)

    def _bring(self, span: Span, island: str) -> None:
        block = self._device.empty(aligned(span.nbytes))
        block.copy_(self._masters.page([span]))
        self.moved += block.numel()
        self._blocks[span] = block
        look = self._looks.setdefault(island, [])
        look.extend((weight.parameter, weight.view(block, 0)) for weight in span.weights)
        self._spans.setdefault(island, []).append(span)

    def _clear(self) -> None:
        self._device.settle()
        self.finish(lap=True)
        self._looks, self._spans, self._blocks, self._times = {}, {}, {}, {}
        _send(self._fixed, self.home)
        self._fixed = []
        self._device.give_back()


def _send(tensors: Sequence[torch.Tensor], device: torch.device) -> None:
    """Move tensors that stay themselves: buffers and parameters of classes of their own."""
    with torch.inference_mode(False), torch.no_grad():
        for tensor in tensors:
            tensor.data = tensor.data.to(device)


def _buffers(module: nn.Module) -> list[torch.Tensor]:
    return list(module.buffers())


def _shared_out(recording: Recording, times: dict[str, int]) -> list[int]:
    """Return ns per step: the time of all islands, shared over the steps inside them as the CPU's time is."""
    inside, shares = 0, []
    for border, ns in zip(recording.borders, recording.step_ns, strict=False):
        if any(is_under(border.path, island) for island in times):
            inside += 1 if border.entry else -1
        shares.append(1 + ns if inside > 0 else 0)
    total, measured = sum(shares), sum(times.values())
    return [share * measured // total if total else 0 for share in shares]
