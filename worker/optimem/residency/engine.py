"""Move a model's weights and data at the borders of a forward under a plan. `life` decides when."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn

from ..card.device import Device
from ..model.recording import Recording
from ..model.units import Inventory, Span, Unit
from ..seams.compiled import forget_graphs
from ..seams.whole import Whole
from ..wire.protocol import Plan
from . import fixed
from .pager import Pager
from .pieces import Held
from .sides import CPU, Meeting, Sides
from .store import Store


class Engine:
    """A pager for the weights, sides for the data, and the tensors that are not paged: buffers, parameters of some classes.

    `start` is the device where forwards start, and end unless the caller wishes otherwise.
    """

    def __init__(
        self,
        device: Device,
        store: Store,
        model: nn.Module,
        inventory: Inventory,
        *,
        start: torch.device,
        output: torch.device | None,
    ) -> None:
        self.start = start
        self._output = output
        self._device = device
        self._store = store
        self._model = model
        paged = {id(weight.parameter) for span in inventory.spans for weight in span.weights}
        self._not_fixed = paged | inventory.for_cpu
        self._together = fixed.together(inventory)
        self._pager: Pager | None = None
        self._sides = Sides({}, start)
        self._whole = Whole()
        self._weighed = False  # a forward ran on the CPU, and may have left data there
        self._mixed = False  # operations have met tensors of both sides, or callers may have kept such
        self._before = (0, 0)
        self.place_fixed()

    @property
    def moved(self) -> int:
        """Weight bytes brought to the device so far."""
        return self._before[0] + (self._pager.bytes_moved if self._pager else 0)

    @property
    def misses(self) -> int:
        """Pages fetched on touch so far."""
        return self._before[1] + (self._pager.misses if self._pager else 0)

    @property
    def both_sides(self) -> bool:
        """True if the plan has modules compute on the CPU and on the device."""
        return self._sides.both

    @property
    def output(self) -> torch.device | None:
        """The device that results are moved to; None if they stay where they come about, all of them on the device."""
        return self._output or (self.start if self.start == CPU or self.both_sides else None)

    @property
    def follows(self) -> bool:
        """True while a plan is followed."""
        return self._pager is not None

    @property
    def weight_bytes(self) -> int:
        """Device bytes that weights take now."""
        pager = self._pager  # which another thread may drop meanwhile
        return pager.weight_bytes if pager else 0

    def is_looked_into(self) -> bool:
        """Tell, between forwards, whether somebody keeps a view of a weight whose bytes on the device will change."""
        return self._pager is not None and self._pager.is_looked_into()

    def spoil(self) -> None:
        """Fill the bytes under such a view with NaN. Only `close` may follow."""
        if self._pager:
            self._pager.spoil()

    def held(self) -> set[Span]:
        """Return the spans that stay on the device."""
        return self._pager.residents() if self._pager else set()

    def follow(self, plan: Plan, units: Sequence[Unit], recording: Recording, held: Held) -> None:
        """Follow `plan` from now on. `held` are weights on the device already; those that the plan keeps are not copied
        again."""
        self._device.settle()
        order = self._store.with_neighbours(
            [span for index in page.units for span in units[index].spans] for page in plan.pages
        )
        self._whole.run(lambda: self._store.arrange(order))  # cut short, it would leave bytes in no known order
        try:
            self._pager = Pager(self._device, self._store, plan, units, recording, held=held, start=self.start)
        except torch.OutOfMemoryError:  # blocks that were held may be scattered: start with a clean card
            held.clear()
            self._device.give_back()
            self._pager = Pager(self._device, self._store, plan, units, recording, held=held, start=self.start)
        self._take_sides()

    def let_go(self) -> Held:
        """Stop following the plan. Return the weights on the device, which are freed once nobody keeps them."""
        held: Held = {}
        if self._pager is not None:
            self._before = self.moved, self.misses
            held = self._pager.close()
            pager, self._pager = self._pager, None
            vars(pager).clear()  # it holds itself, and so would hold the store's bytes until garbage is collected
        self._change_sides(Sides({}, self.start))
        return held

    def record(self, meeting: Meeting) -> None:
        """Begin an outermost call without a plan, where forwards start. `meeting` is told of operations that meet tensors of
        both sides; later plans look into such operations too."""

        def noted(name: str) -> None:
            self._mixed = True
            meeting(name)

        self.rest(self.start)
        self._change_sides(Sides({}, self.start, meeting=noted))
        self._sides.begin()

    def drop(self) -> None:
        """Stop following the plan and free the device, without reading the pager's notes: a call was cut short, perhaps
        within the pager."""
        self._whole.settle()
        self._device.settle()
        self._before = self.moved, self.misses
        pager, self._pager = self._pager, None
        self._store.come_home()
        if pager is not None:
            vars(pager).clear()  # whoever keeps the error keeps its frames, and those keep the pager
        self._sides.end()
        self._change_sides(Sides({}, self.start))

    def tied(self, *, every: bool) -> set[str]:
        """Return the paths of the modules whose borders matter, with `every` also of those that matter only for timing."""
        return self._pager.readers(every=every or self.both_sides) if self._pager else set()

    def begin(self, *, lap: bool) -> None:
        """Begin an outermost call. `lap`: it is one of the whole model."""
        if self._pager:
            self._pager.begin(lap=lap)
        self._sides.begin()

    def enter(self, path: str, args: Any, kwargs: Any, *, next_lap: bool) -> tuple[Any, Any, int | None]:
        """Acquire the pages of module `path`; return its arguments and the copy that the device waits for."""
        waited = self._pager.acquire(path, next_lap=next_lap) if self._pager else None
        return *self._sides.enter(path, args, kwargs), waited

    def leave(self, path: str) -> None:
        """Release the pages of module `path`."""
        self._sides.leave(path)
        if self._pager:
            self._pager.release(path)

    def finish(self, *, lap: bool) -> None:
        """End an outermost call."""
        self._sides.end()
        if self._pager:
            self._pager.finish(lap=lap)

    def on_cpu(self) -> bool:
        """Tell whether the CPU computes the next step."""
        return self._sides.now.type == "cpu"

    def rest(self, place: torch.device) -> None:
        """Send the tensors that are not paged to `place`, where the next outermost call computes."""
        self._send(lambda path: place)

    def weigh(self) -> None:
        """Begin an outermost call on the CPU; data that earlier calls have left on the device is brought there."""
        self.rest(CPU)
        self._weighed = True
        self._change_sides(Sides({}, CPU, [self._device.torch], draws=self.start))
        self._sides.begin()

    def touch(self, span: Span) -> None:
        """Fetch a span for a reader that has not acquired it, unless it is on the device."""
        if self._pager:
            self._pager.touch(span)

    def shrink(self, nbytes: int, *, at_start: bool) -> int | None:
        """Give device bytes back now and return how many; None if that must wait for another border. `at_start`: no module
        of the model runs yet."""
        if self._pager is None:
            return 0
        freed = self._pager.shrink(nbytes, at_start=at_start, all_tied=self.both_sides)
        if freed and self.start == CPU:  # the CPU computes with evicted pages from now on
            self._sides.change(self._pager.sides())
            self.place_fixed()
        return freed

    def refresh(self) -> None:
        """The masters have changed: copy the weights on the device again."""
        if self._pager:
            self._pager.refresh()

    def storages(self) -> set[int]:
        """Return the storage pointers of device bytes that weights view."""
        return self._pager.storages() if self._pager else set()

    def close(self) -> None:
        """Give all device memory back."""
        self.let_go().clear()
        fixed.send_to_cpu(self._model)
        self._device.give_back()

    def _take_sides(self) -> None:
        assert self._pager is not None
        left = {CPU} if self._weighed else set[torch.device]()
        sides = Sides(self._pager.sides(), self.start, self._pager.places() | left, meeting=_ignore if self._mixed else None)
        self._mixed |= sides.both
        self._change_sides(sides)
        self.place_fixed()

    def _change_sides(self, sides: Sides) -> None:
        """Compute on other `sides`. Drops the graphs of torch.compile, each of which is of one side."""
        if self._sides.meets or sides.meets:
            forget_graphs()
        self._sides = sides

    def place_fixed(self) -> None:
        """Send each tensor that is not paged to the side of the module that holds it now."""
        self._send(self._sides.around)

    def _send(self, place: Callable[[str], torch.device]) -> None:
        by_place: dict[torch.device, list[torch.Tensor]] = {}
        for path, tensor in self._fixed():
            by_place.setdefault(place(path), []).append(tensor)
        for device, tensors in by_place.items():
            fixed.send(tensors, device)

    def _fixed(self) -> Iterator[tuple[str, torch.Tensor]]:
        seen = set(self._not_fixed)
        for path, module in self._model.named_modules():
            for tensor in (*module._parameters.values(), *module._buffers.values()):
                if tensor is not None and id(tensor) not in seen:
                    seen.add(id(tensor))
                    yield self._together.get(id(tensor), path), tensor


def _ignore(name: str) -> None:
    """Take no note of an operation that meets tensors of both sides."""
