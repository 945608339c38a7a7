"""Where a parameter's data points: home, to the device, or nowhere. Only this file writes a parameter's data.

A look is prepared once and taken many times: re-pointing `parameter.data` to a ready view takes 0.2 us, making the view some
5 us. A `Weight` is one plain tensor. A parameter of a tensor class of its own is `InnerWeights`: one `Weight` for each plain
tensor that it is made of (`inner` finds them). Where a device's tensors cannot be assigned to `.data`, the target of a look
is a `Swapped`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Protocol

import torch

# Tensors to re-point, each with its new view. A target is a tensor, or stands for one: writing its `data` re-points that.
Looks = list[tuple[Any, torch.Tensor]]


def take(looks: Looks) -> None:
    """Re-point every tensor to its view."""
    for target, view in looks:
        target.data = view


def repoints(device: torch.device) -> bool:
    """Tell whether a tensor on the CPU can be re-pointed to `device` by assignment to its `data`."""
    return _repoints(device.type)


@cache
def _repoints(kind: str) -> bool:
    there = torch.empty(0, device=kind)
    return bool(torch._has_compatible_shallow_copy_type(torch.empty(0, device="cpu"), there))


class Swapped:
    """A tensor that is re-pointed by swapping its insides with those of another: it stays the same object. For devices whose
    tensors `.data =` refuses, such as torch_xla's. Costs some 2 us."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self._tensor = tensor

    @property
    def data(self) -> torch.Tensor:
        """The data of the tensor."""
        return self._tensor.data

    @data.setter
    def data(self, view: torch.Tensor) -> None:
        other = view.data  # the view itself stays what it is
        with torch.inference_mode(False):
            if not self._tensor.is_inference():
                torch._C._autograd._unsafe_set_version_counter((other,), (self._tensor._version,))
        other.requires_grad_(self._tensor.requires_grad)
        torch._C._swap_tensor_impl(self._tensor, other)


class Paged(Protocol):
    """One parameter as spans, stores and pagers see it. `parts` are the plain tensors that it is made of, `home` where they
    point when it is not on the device."""

    @property
    def name(self) -> str:
        """The parameter's full name."""
        ...

    @property
    def parameter(self) -> torch.Tensor:
        """The parameter itself."""
        ...

    @property
    def parts(self) -> Sequence[Weight]:
        """The plain tensors to re-point."""
        ...

    home: Looks

    def looks(self, block: torch.Tensor, at: int) -> Looks:
        """Prepare to point into `block` (bytes), where the span begins at byte `at`."""
        ...

    def look(self, block: torch.Tensor, at: int) -> None:
        """Point into `block` (bytes), where the span begins at byte `at`."""
        ...

    def settle(self, block: torch.Tensor, at: int) -> None:
        """Make `block` (bytes), where the span begins at byte `at`, the home, and point there."""
        ...

    def look_nowhere(self) -> None:
        """Point to bytes that are all 0xFF: NaN for every float."""
        ...

    def leave(self, blocks: Sequence[tuple[int, torch.Tensor]]) -> None:
        """Have no home any more, and point into `blocks`: bytes, each with the byte of the span at which it begins."""
        ...


@dataclass(eq=False)
class Weight:
    """One plain tensor, mostly a parameter, and its place in its span: dtype, size and stride in elements, `start` in bytes.

    A parameter made in inference mode has no version counter, so its views are made in inference mode too.
    """

    name: str
    parameter: torch.Tensor
    dtype: torch.dtype
    size: torch.Size
    stride: tuple[int, ...]
    start: int
    inference: bool
    target: Any = field(repr=False)  # of its looks: the parameter, or its `Swapped`
    home: Looks = field(default_factory=list, repr=False)

    @classmethod
    def of(cls, name: str, tensor: torch.Tensor, start: int, device: torch.device) -> Weight:
        """Return `tensor` as a weight that is to point to `device` and back."""
        target = tensor if repoints(device) else Swapped(tensor)
        return cls(name, tensor, tensor.dtype, tensor.size(), tensor.stride(), start, tensor.is_inference(), target)

    @property
    def parts(self) -> Sequence[Weight]:
        """See `Paged`."""
        return (self,)

    @property
    def nbytes(self) -> int:
        """Bytes from the first element to the end of the last."""
        return extent(self.size, self.stride, self.dtype)

    def view(self, block: torch.Tensor, at: int) -> torch.Tensor:
        """Return a view of this weight in `block` (bytes), where its span begins at byte `at`."""
        with torch.inference_mode(self.inference):  # not the mode of the caller, which the view outlives
            first = at + self.start
            return block[first : first + self.nbytes].view(self.dtype).as_strided(self.size, self.stride)

    def looks(self, block: torch.Tensor, at: int) -> Looks:
        """See `Paged`."""
        return [(self.target, self.view(block, at))]

    def look(self, block: torch.Tensor, at: int) -> None:
        """See `Paged`."""
        take(self.looks(block, at))

    def settle(self, block: torch.Tensor, at: int) -> None:
        """See `Paged`."""
        self.home = self.looks(block, at)
        take(self.home)

    def look_nowhere(self) -> None:
        """See `Paged`. The weight is one expanded element."""
        with torch.inference_mode(self.inference):
            one = torch.full((self.dtype.itemsize,), 0xFF, dtype=torch.uint8, device="cpu").view(self.dtype).reshape(())
            take([(self.target, one.expand(self.size))])

    def leave(self, blocks: Sequence[tuple[int, torch.Tensor]]) -> None:
        """See `Paged`."""
        self.home = []
        self.look(*self._block(blocks))

    def _block(self, blocks: Sequence[tuple[int, torch.Tensor]]) -> tuple[torch.Tensor, int]:
        """Return the block that holds this weight, and where the span would begin in it."""
        at, block = next((at, block) for at, block in reversed(blocks) if at <= self.start)
        return block, -at


@dataclass(eq=False)
class InnerWeights:
    """A parameter of a tensor class of its own, with the plain tensors that it is made of.

    `wrappers` are tensors without bytes that hold others, each after those inside it; `parameter` is the last, if it is one.
    They tell sizes and the device, so each look has a wrapper made anew for them to copy these from. `settled` and `left`
    are called when the weight gets a home and when it has none any more.
    """

    name: str
    parameter: torch.Tensor
    parts: tuple[Weight, ...]
    wrappers: tuple[torch.Tensor, ...]
    settled: Callable[[], None]
    left: Callable[[], None]
    home: Looks = field(default_factory=list, repr=False)

    def looks(self, block: torch.Tensor, at: int) -> Looks:
        """See `Paged`."""
        return self._all([look for part in self.parts for look in part.looks(block, at)])

    def look(self, block: torch.Tensor, at: int) -> None:
        """See `Paged`."""
        take(self.looks(block, at))

    def settle(self, block: torch.Tensor, at: int) -> None:
        """See `Paged`."""
        self.home = self.looks(block, at)
        take(self.home)
        self.settled()

    def look_nowhere(self) -> None:
        """See `Paged`."""
        take(self.home)
        for part in self.parts:
            part.look_nowhere()

    def leave(self, blocks: Sequence[tuple[int, torch.Tensor]]) -> None:
        """See `Paged`."""
        self.home = []
        take(self._all([look for part in self.parts for look in part.looks(*part._block(blocks))]))
        self.left()

    def _all(self, looks: Looks) -> Looks:
        """Add the looks of the wrappers to those of the parts."""
        made = {id(part.parameter): view for part, (_, view) in zip(self.parts, looks, strict=True)}
        for wrapper in self.wrappers:
            made[id(wrapper)] = remade(wrapper, made)
        swaps = isinstance(self.parts[0].target, Swapped)
        return looks + [(Swapped(each) if swaps else each, made[id(each)]) for each in self.wrappers]


def go_home(weights: Iterable[Paged]) -> None:
    """Point all `weights` to their homes."""
    for weight in weights:
        take(weight.home)


def remade(wrapper: torch.Tensor, inner: Mapping[int, torch.Tensor]) -> torch.Tensor:
    """Return a new wrapper like `wrapper` of other tensors, which `inner` has by the ids of those that they stand for."""
    names, context = wrapper.__tensor_flatten__()  # type: ignore[attr-defined]
    parts = {name: inner[id(getattr(wrapper, name))] for name in names}
    make = type(wrapper).__tensor_unflatten__  # type: ignore[attr-defined]
    with torch.inference_mode(wrapper.is_inference()):
        return make(parts, context, wrapper.size(), wrapper.stride())  # type: ignore[no-any-return]


def relocate(tensor: torch.Tensor, device: torch.device) -> None:
    """Move a tensor of a subclass, and its inner tensors, to `device`. Each stays the same object."""
    moved = tensor.data.to(device)
    for name in tensor.__tensor_flatten__()[0] if hasattr(tensor, "__tensor_flatten__") else ():
        relocate(getattr(tensor, name), device)
    crosses = repoints(device) and repoints(tensor.device)
    target = tensor if crosses else Swapped(tensor)
    target.data = moved


def extent(size: torch.Size, stride: tuple[int, ...], dtype: torch.dtype) -> int:
    """Return the bytes from the first element of a tensor to the end of its last."""
    return (1 + sum((n - 1) * step for n, step in zip(size, stride, strict=True))) * dtype.itemsize
