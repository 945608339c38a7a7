"""A live model as units: its bytes, the parameters that view them, and the bytes that must move together.

Nothing is touched here. A *span* is a run of storage bytes that parameters view. Shared bytes are one span, however many
names, ties and views they have. A *unit* is a set of spans that move together: at first the spans of one owner, after the
recorded forward those of one owner that are also read together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.jit._script import RecursiveScriptModule
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from ..errors import BadInput
from .inner import Makeup, innermost, inside, is_for_cpu, is_plain, makeup
from .training import first_in_training
from .weights import Paged, extent

# Spans begin at multiples of this in the slab, in a page and in the arena. It suits every dtype and vector load. Torch's
# allocators round up to it too, so a span in a block of its own takes no more than planned.
ALIGNMENT = 512
ALIGNMENT_OF_DTYPES = 16  # bytes of the widest number
_TINY = 128  # bytes
_MANY = 16
_TOGETHER = 4096  # tiny parameters in one span, at most
_CPU = torch.device("cpu")


def aligned(nbytes: int) -> int:
    """Round `nbytes` up to the alignment of spans."""
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


class Named(NamedTuple):
    """A parameter with the dotted path and the class of the module that holds it, its full name, and its makeup."""

    path: str
    kind: str
    name: str
    made: Makeup


@dataclass(frozen=True, eq=False)
class Run:
    """Neighbouring bytes of one storage, from byte `start` of it, which begin at byte `at` of their span."""

    tensor: torch.Tensor  # that views the storage until it is re-pointed
    start: int
    nbytes: int
    at: int
    found: StorageWeakRef

    def source(self) -> torch.Tensor:
        """Return the original bytes, shape (nbytes,), uint8. Only before the parameters are re-pointed."""
        storage = self.tensor.untyped_storage()
        return torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage, self.start, (self.nbytes,), (1,))

    def own(self, kept: torch.Tensor) -> torch.Tensor:
        """Return a storage for this run alone with the bytes of `kept`, shape (nbytes,): the original one if somebody still
        views it, else a new one."""
        storage = torch.UntypedStorage._new_with_weak_ptr(self.found.cdata)
        if storage is None or self.start % ALIGNMENT_OF_DTYPES:
            return kept.clone()
        bytes_found = torch.empty(0, dtype=torch.uint8, device="cpu").set_(storage, self.start, (self.nbytes,), (1,))
        return bytes_found if torch.equal(bytes_found, kept) else bytes_found.copy_(kept)  # a mapped file may be read-only


@dataclass(frozen=True, eq=False)
class Span:
    """Bytes that `weights` view: one run, or several that tensors inside one weight view. `owners` are the modules that
    registered one of the weights, `owner` is the first."""

    owner: str
    kind: str
    nbytes: int
    runs: tuple[Run, ...]
    weights: tuple[Paged, ...]
    owners: tuple[str, ...]

    def copy_to(self, block: torch.Tensor) -> torch.Tensor:
        """Copy the original bytes into `block`, shape (nbytes,), uint8, and return it. Only before the parameters are
        re-pointed."""
        for run in self.runs:
            block[run.at :][: run.nbytes].copy_(run.source())
        return block

    def leave(self, kept: torch.Tensor) -> None:
        """Point the weights to storages of their own with the bytes of `kept`, shape (nbytes,)."""
        own = [(run.at, run.own(kept[run.at :][: run.nbytes])) for run in self.runs]
        for weight in self.weights:
            weight.leave(own)

    @property
    def parameters(self) -> int:
        """Number of elements, shared ones once."""
        return sum(run.nbytes // run.tensor.element_size() for run in self.runs)


@dataclass(frozen=True)
class Unit:
    """Spans that move together. `uses` are (first, last) steps, empty if no forward reads the unit."""

    path: str
    kind: str
    spans: tuple[Span, ...]
    readers: tuple[str, ...] = ()
    uses: tuple[tuple[int, int], ...] = ()

    @property
    def nbytes(self) -> int:
        """Bytes as laid out on the device, alignment included."""
        return sum(aligned(span.nbytes) for span in self.spans)

    @property
    def parameters(self) -> int:
        """Elements in all spans."""
        return sum(span.parameters for span in self.spans)


@dataclass(frozen=True)
class Inventory:
    """All tensors of a model: spans that can be paged, tensors that stay on the device (buffers, parameters that share bytes
    with them, classes that cannot be paged), and parameters that stay on the CPU."""

    spans: tuple[Span, ...]
    fixed: tuple[torch.Tensor, ...]
    fixed_names: tuple[str, ...]
    names: dict[int, str] = field(repr=False)
    for_cpu: frozenset[int] = frozenset()  # ids of parameters that only the CPU can compute with

    @property
    def weights_bytes(self) -> int:
        """Bytes of all pageable weights, without alignment."""
        return sum(span.nbytes for span in self.spans)

    @property
    def fixed_bytes(self) -> int:
        """Bytes of the tensors that stay on the device, each in a block of its own, shared ones once."""
        return _bytes_of(self._fixed(), aligned)

    @property
    def kept_bytes(self) -> int:
        """Bytes of the weights among them."""
        return _bytes_of((name, tensor) for name, tensor in self._fixed() if isinstance(tensor, nn.Parameter))

    def kept(self) -> dict[str, int]:
        """Return the weights that stay on the device by their names, with their bytes."""
        return {name: _bytes_of([(name, tensor)]) for name, tensor in self._fixed() if isinstance(tensor, nn.Parameter)}

    def _fixed(self) -> list[tuple[str, torch.Tensor]]:
        return list(zip(self.fixed_names, self.fixed, strict=True))


def _bytes_of(tensors: Iterable[tuple[str, torch.Tensor]], block: Callable[[int], int] = int) -> int:
    """Return the bytes of tensors with their names, those in wrappers included, shared ones once. `block` returns the bytes
    of a block that holds so many."""
    opened = [(name, part) for name, tensor in tensors for part in inside(tensor)]
    others = (block(part.numel() * part.element_size()) for _, part in opened if not is_plain(part))
    return sum(block(span.nbytes) for span in spans_of(named(opened))) + sum(others)


def take_stock(model: nn.Module, *, loaded: bool = True, device: torch.device = _CPU) -> Inventory:
    """Return the inventory of `model`, whose weights are to be paged to `device`. Raises BadInput for a model that cannot be
    paged, before anything is touched.

    If `loaded` is False only sizes matter, and the weights may lie anywhere, on the meta device too.
    """
    _refuse_scripted(model)
    _refuse_training(model)
    names: dict[int, str] = {}
    owners: dict[int, list[str]] = {}
    pageable: list[Named] = []
    fixed: dict[int, tuple[str, torch.Tensor]] = {}
    for_cpu = {
        id(parameter) for module in model.modules() if holds_for_cpu(module) for parameter in module._parameters.values()
    }
    for path, module in model.named_modules():
        for name, parameter in module._parameters.items():
            if parameter is None:
                continue
            owners.setdefault(id(parameter), []).append(path)
            if id(parameter) in names:
                continue
            full = _join(path, name)
            names[id(parameter)] = full
            _refuse_unusable(f"parameter {full}", parameter, loaded=loaded)
            if id(parameter) in for_cpu:
                continue
            made = makeup(parameter, module)
            if made is not None:
                pageable.append(Named(path, type(module).__name__, full, made))
            else:
                fixed[id(parameter)] = full, parameter
        for name, buffer in module._buffers.items():
            if buffer is not None:
                _refuse_unusable(f"buffer {_join(path, name)}", buffer, loaded=loaded)
                fixed.setdefault(id(buffer), (_join(path, name), buffer))
    shared = _shared_with(pageable, fixed.values())
    fixed.update(
        (id(made.parameter), (full, made.parameter)) for _, _, full, made in pageable if id(made.parameter) in shared
    )
    pageable = [entry for entry in pageable if id(entry.made.parameter) not in shared]
    fixed_names, tensors = zip(*fixed.values(), strict=True) if fixed else ((), ())
    return Inventory(tuple(spans_of(pageable, owners, device)), tensors, fixed_names, names, frozenset(for_cpu))


def holds_for_cpu(module: nn.Module) -> bool:
    """Tell whether a module has a parameter that only the CPU can compute with."""
    return any(parameter is not None and is_for_cpu(parameter) for parameter in module._parameters.values())


def _shared_with(pageable: Sequence[Named], fixed: Iterable[tuple[str, torch.Tensor]]) -> set[int]:
    """Return the ids of parameters that share bytes with a fixed tensor: they cannot come and go without it."""
    others = named(fixed)
    if not others:
        return set()
    ids = {id(entry.made.parameter) for entry in others}
    spans = [{id(weight.parameter) for weight in span.weights} for span in spans_of([*pageable, *others])]
    return {key for span in spans if span & ids for key in span - ids}


def named(tensors: Iterable[tuple[str, torch.Tensor]]) -> list[Named]:
    """Return the plain ones of `tensors`, which come with their full names, as `spans_of` takes them."""
    return [
        Named(full.rpartition(".")[0], "Module", full, Makeup(tensor, (tensor,)))
        for full, tensor in tensors
        if is_plain(tensor)
    ]


def by_owner(spans: Iterable[Span]) -> list[Unit]:
    """Group spans into one unit per owner, in the order of registration."""
    owners: dict[str, list[Span]] = {}
    for span in spans:
        owners.setdefault(span.owner, []).append(span)
    return [Unit(_unit_path(owner, group, whole=True), group[0].kind, tuple(group)) for owner, group in owners.items()]


@dataclass(frozen=True)
class Reading:
    """The readers of one span in the recorded forward, and the steps (first, last) in which they hold it."""

    readers: tuple[str, ...]
    uses: tuple[tuple[int, int], ...]


def by_reading(spans: Sequence[Span], readings: dict[Span, Reading]) -> list[Unit]:
    """Group spans of one owner that are read together, in the order of first use; units that nobody reads come last."""
    per_owner: dict[str, int] = {}
    groups: dict[tuple[str, Reading | None], list[Span]] = {}
    for span in spans:
        per_owner[span.owner] = per_owner.get(span.owner, 0) + 1
        groups.setdefault((span.owner, readings.get(span)), []).append(span)
    found = [
        Unit(
            _unit_path(owner, group, whole=len(group) == per_owner[owner]),
            group[0].kind,
            tuple(group),
            reading.readers if reading else (),
            reading.uses if reading else (),
        )
        for (owner, reading), group in groups.items()
    ]
    return sorted(found, key=lambda unit: unit.uses[0] if unit.uses else (1 << 62, 0))


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def storage_pointer(tensor: torch.Tensor) -> int:
    """Return the address of the storage of `tensor`, of a wrapper the first one inside, or what stands for it on a device
    without addresses; -1 for sparse and other tensors without a storage."""
    try:
        storage = innermost(tensor).untyped_storage()
    except (RuntimeError, NotImplementedError):
        return -1
    return address(storage)


def has_address(tensor: torch.Tensor) -> bool:
    """Tell whether a plain tensor tells where its bytes lie."""
    return tensor.data_ptr() != 0


def address(storage: torch.UntypedStorage) -> int:
    """Return the address of the bytes of `storage`, or that of torch's record of it where the bytes have none."""
    try:
        return storage.data_ptr() or int(storage._cdata)
    except RuntimeError:
        return int(storage._cdata)


def use_count(storage: torch.UntypedStorage) -> int:
    """Return how many tensors view `storage`."""
    return torch._C._storage_Use_Count(storage._cdata) - 1  # without `storage` itself


def _unit_path(owner: str, spans: Sequence[Span], *, whole: bool) -> str:
    return owner if owner and whole else spans[0].weights[0].name


def spans_of(
    pageable: Sequence[Named], owners: Mapping[int, Sequence[str]] | None = None, device: torch.device = _CPU
) -> Iterator[Span]:
    """Merge parameters whose bytes overlap, in the given order. `owners` has, by a parameter's id, the paths of all modules
    that hold it; with it the many tiny parameters of one module are merged too. Without it the path that comes with a
    parameter counts. The weights are to point to `device` and back."""
    tensors = [(index, tensor) for index, entry in enumerate(pageable) for tensor in entry.made.plain]
    runs = _runs([tensor for _, tensor in tensors])
    viewed: dict[int, list[list[torch.Tensor]]] = {}  # by the first of the entries that view a run
    for run in runs:
        viewed.setdefault(tensors[run[0]][0], []).append([tensors[i][1] for i in run])
    overlapping = [{tensors[i][0] for i in run} for run in runs]
    for members in _connected([*overlapping, *_tiny(pageable, owners or {})], len(pageable)):
        found = [pageable[i] for i in members]
        holders = (path for entry in found for path in (owners or {}).get(id(entry.made.parameter), [entry.path]))
        views = [run for i in members for run in viewed.get(i, ())]
        yield _span(found, views, tuple(dict.fromkeys(holders)), device)


def _runs(tensors: Sequence[torch.Tensor]) -> list[list[int]]:
    """Return the indexes of tensors whose bytes overlap, together, in the order of the first ones."""
    by_storage: dict[int, list[int]] = {}
    for index, tensor in enumerate(tensors):
        storage = tensor.untyped_storage()
        by_storage.setdefault(address(storage), []).append(index)
    groups: list[list[int]] = []
    for members in by_storage.values():
        groups.extend(_overlapping(members, [_range(tensors[i]) for i in members]))
    return sorted(map(sorted, groups))


def _overlapping(members: Sequence[int], ranges: Sequence[tuple[int, int]]) -> list[list[int]]:
    groups: list[list[int]] = []
    end = -1
    for (start, stop), member in sorted(zip(ranges, members, strict=True)):
        if start < end:
            groups[-1].append(member)
        else:
            groups.append([member])
        end = max(end, stop)
    return groups


def _tiny(pageable: Sequence[Named], owners: Mapping[int, Sequence[str]]) -> Iterator[set[int]]:
    """Yield the numbers of tiny parameters that the same modules hold, where they are so many that a span for each would be
    mostly alignment."""
    held: dict[Sequence[str], list[int]] = {}
    for index, entry in enumerate(pageable):
        if sum(extent(each.size(), each.stride(), each.dtype) for each in entry.made.plain) <= _TINY:
            held.setdefault(tuple(owners.get(id(entry.made.parameter), ())), []).append(index)
    for holders, members in held.items():
        if holders and len(members) >= _MANY:
            yield from (set(members[first : first + _TOGETHER]) for first in range(0, len(members), _TOGETHER))


def _connected(groups: Iterable[set[int]], count: int) -> list[list[int]]:
    """Return the numbers below `count` in groups: those in one of `groups` are together, and so are chains."""
    together = {number: {number} for number in range(count)}
    for group in groups:
        joined = set[int]().union(*(together[number] for number in group))
        together.update(dict.fromkeys(joined, joined))
    return [sorted(group) for number, group in together.items() if number == min(group)]


def _span(
    group: Sequence[Named], tensors: Sequence[Sequence[torch.Tensor]], owners: tuple[str, ...], device: torch.device
) -> Span:
    """Return the span of the parameters in `group`, each of whose runs some `tensors` view."""
    runs: list[Run] = []
    starts: dict[int, int] = {}
    for views in tensors:
        ranges = [_range(tensor) for tensor in views]
        first, end = min(low for low, _ in ranges), max(high for _, high in ranges)
        unit = ALIGNMENT if end - first > _TINY else ALIGNMENT_OF_DTYPES
        at = -(-(runs[-1].at + runs[-1].nbytes) // unit) * unit if runs else 0
        narrow = min(views, key=torch.Tensor.element_size)
        runs.append(Run(narrow, first, end - first, at, StorageWeakRef(narrow.untyped_storage())))
        starts.update((id(tensor), at + low - first) for tensor, (low, _) in zip(views, ranges, strict=True))
    weights = tuple(
        entry.made.weight(entry.name, [starts[id(each)] for each in entry.made.plain], device) for entry in group
    )
    return Span(group[0].path, group[0].kind, runs[-1].at + runs[-1].nbytes, tuple(runs), weights, owners)


def _range(tensor: torch.Tensor) -> tuple[int, int]:
    start = int(tensor.storage_offset()) * tensor.element_size()
    return start, start + extent(tensor.size(), tensor.stride(), tensor.dtype)


def _refuse_scripted(model: nn.Module) -> None:
    for path, module in model.named_modules():
        if isinstance(module, RecursiveScriptModule):
            raise BadInput(
                f"{'its module ' + path if path else 'the model'} was made by torch.jit.script and takes no hooks; "
                "page the module that it was scripted from"
            )


def _refuse_training(model: nn.Module) -> None:
    path = first_in_training(model.named_modules())
    if path is not None:
        where = f"its module {path}" if path else "it"
        raise BadInput(f"the model is in training mode ({where} is); call model.eval() first: Optimem runs inference only")


def holds_no_numbers(tensor: torch.Tensor) -> bool:
    """Tell whether `tensor` is only a shape: on the meta device, or fake."""
    return tensor.device.type == "meta" or isinstance(tensor, FakeTensor) or isinstance(tensor.data, FakeTensor)


def _refuse_unusable(what: str, tensor: torch.Tensor, *, loaded: bool) -> None:
    if isinstance(tensor, (UninitializedParameter, UninitializedBuffer)):
        raise BadInput(f"{what} is not initialised yet (a lazy module); run the model once on the CPU first")
    if loaded and holds_no_numbers(tensor):
        kind = "on the meta device" if tensor.device.type == "meta" else "a fake tensor"
        raise BadInput(f"{what} is {kind} and holds no numbers; load the weights first")
    if loaded and tensor.device.type != "cpu":
        raise BadInput(f"{what} is on {tensor.device}; the model must be on the CPU: call model.to('cpu') first")
