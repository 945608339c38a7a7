"""Where modules compute under a plan, and how data gets there.

Data stays where it was computed until a module on the other side begins: its arguments change sides at its entry. So data
crosses only at the borders of runs of modules on one side. An operation between modules (a residual sum, a concatenation)
may meet tensors of both sides: of a plan with two sides, of an earlier one whose data callers have kept, or made on the CPU
by the model. A function mode brings them together where that may be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from ..data import moving
from ..data.draws import draws
from ..data.lending import Loan
from ..data.writes import written_by
from ..seams.modes import Ours

CPU = torch.device("cpu")

# Calls whose arguments may lie on different devices, as torch's function mode names them.
_ACROSS = frozenset(
    {"to", "copy_", "type_as", "view_as", "reshape_as", "expand_as", "set_", "__get__", "__set__", "__delete__"}
)
# Calls whose second argument torch wants on the CPU if it counts something: lengths, batch sizes, indices to split at.
_COUNTED = frozenset(
    {"_pack_padded_sequence", "_pad_packed_sequence", "lstm", "gru", "rnn_tanh", "rnn_relu", "tensor_split"}
)


Meeting = Callable[[str], None]  # gets the name of an operation


class Sides:
    """The side of every module that reads weights, by dotted path. `now` is the side of the module that began last."""

    def __init__(
        self,
        of: Mapping[str, torch.device],
        start: torch.device,
        weights: Iterable[torch.device] = (),
        *,
        meeting: Meeting | None = None,
        draws: torch.device | None = None,
    ) -> None:
        """Random numbers are drawn on the side `draws`, by default that of `start`, wherever modules compute: so a change of
        sides changes no numbers. `meeting` is told of every operation that meets tensors of both sides; with it they may
        meet under any plan."""
        self._of = of
        self._start = start
        self.now = start
        self.met, self.draws = meeting, draws or start
        self._loans: dict[str, list[Loan]] = {}  # of the modules that run now
        # True if data or weights are on the CPU in some modules and on the device in others.
        self.both = len({start, *of.values(), *weights}) > 1
        self._mode = _Meeting(self) if self.both or meeting else None

    @property
    def meets(self) -> bool:
        """True while operations are looked into that may meet tensors of both sides."""
        return self._mode is not None

    def change(self, of: Mapping[str, torch.device]) -> None:
        """Follow `of` from now on, within a call too: modules keep their loans, and data may still lie on either side."""
        self._of = of

    def begin(self) -> None:
        """Begin an outermost call, on the thread that makes it."""
        self.now = self._start
        if self._mode is not None:
            self._mode = _Meeting(self)  # new each time: an earlier one may lie on another thread's stack
            self._mode.__enter__()  # type: ignore[no-untyped-call]

    def end(self) -> None:
        """End it, whatever has happened. Leaves modes of others on top in peace."""
        self._loans = {}
        if self._mode is not None:
            self._mode.end()

    def enter(self, path: str, args: Any, kwargs: Any) -> tuple[Any, Any]:
        """Return the arguments on the side of module `path`; as they are if it reads no weights."""
        side = self._of.get(path) if self._mode is not None else None
        if side is None:
            return args, kwargs
        self.now = side
        loan = Loan()
        self._loans.setdefault(path, []).append(loan)
        args, kwargs = loan.bring((args, kwargs), side)
        return args, kwargs

    def leave(self, path: str) -> None:
        """End the loan to module `path`: its writes go to the caller's tensors. Its result stays where it is."""
        loans = self._loans.get(path)
        if loans:
            loans.pop().give_back()

    def around(self, path: str) -> torch.device:
        """Return the side for the other tensors of module `path`: its own side, else the one of all modules inside it, else
        the one on which forwards start."""
        own = self._of.get(path)
        inside = {side for name, side in self._of.items() if is_under(name, path)}
        if own is not None:
            return own
        return inside.pop() if len(inside) == 1 else self._start


def is_under(path: str, ancestor: str) -> bool:
    """Tell whether `path` is `ancestor` or one of its descendants."""
    return not ancestor or path == ancestor or path.startswith(ancestor + ".")


class _Meeting(Ours, TorchFunctionMode):
    """Lends the tensors of a call to one device if they lie on two, while its owner, the sides, is at work."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "").partition(".")[0]
        owner = self.owner()
        if name in _ACROSS or owner is None:
            return func(*args, **kwargs)
        if owner.both and draws(name, args, kwargs):
            return self._draw(owner.draws, func, args, kwargs)
        counts = args[1].to(CPU) if name in _COUNTED and len(args) > 1 and _counts(args[1]) else None
        if counts is not None:
            if counts is not args[1] and owner.met:
                owner.met(name)
            args = args[0], counts, *args[2:]
        met = [tensor for tensor in moving.tensors((args, kwargs) if kwargs else args) if tensor is not counts]
        if len({tensor.device for tensor in met}) < 2:
            return func(*args, **kwargs)
        if owner.met:
            owner.met(name)
        return self._together(func, args, kwargs, counts)

    def _draw(self, place: torch.device, func: Any, args: Any, kwargs: Any) -> Any:
        """Call `func` where random numbers are drawn; its result goes to where it would have come about."""
        met = list(moving.tensors((args, kwargs)))
        came_from = met[0].device if met else torch.device(kwargs.get("device") or CPU)
        if came_from.type == place.type:
            return func(*args, **kwargs)
        if "device" in kwargs:
            kwargs = {**kwargs, "device": place}
        loan = Loan(written_by(func, args, kwargs))
        try:
            args, kwargs = loan.bring((args, kwargs), place)
            return moving.move(loan.found(func(*args, **kwargs)), came_from)
        finally:
            loan.give_back()

    def _together(self, func: Any, args: Any, kwargs: Any, counts: torch.Tensor | None) -> Any:
        """Call `func` with all tensors but `counts` lent to one device, and end the loan."""
        met = [tensor for tensor in moving.tensors((args, kwargs)) if tensor is not counts]
        written = written_by(func, args, kwargs)
        if len({tensor.device for tensor in met if not _is_number(tensor)} | {tensor.device for tensor in written}) < 2:
            return func(*args, **kwargs)
        place, loan = self._place(met, written), Loan(written)
        try:
            args, kwargs = loan.bring((args, kwargs), place, lambda tensor: tensor if tensor is counts else tensor.to(place))
            return loan.found(func(*args, **kwargs))
        finally:
            loan.give_back()

    def _place(self, met: Sequence[torch.Tensor], written: Sequence[torch.Tensor]) -> torch.device:
        """Return the device of the tensors that are written to, else of a weight, else where modules compute now."""
        fixed = [*written, *(tensor for tensor in met if isinstance(tensor, nn.Parameter))]
        return fixed[0].device if fixed else self.owner().now


def _counts(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.dtype is torch.int64


def _is_number(tensor: torch.Tensor) -> bool:
    """Tell whether `tensor` is a number on the CPU, which torch takes on any device."""
    return tensor.dim() == 0 and tensor.device.type == "cpu"
