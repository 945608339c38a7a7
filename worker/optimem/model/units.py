"""A live model as units: its bytes, the parameters that view them, and the bytes that must move together.

Nothing is touched here. A *span* is a run of storage bytes that parameters view. Shared bytes are one span, however many
names, ties and views they have. A *unit* is a set of spans that move together: at first the spans of one owner, after the
recorded forward those of one owner that are also read together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.jit._script import RecursiveScriptModule
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from ..errors import BadInput
from .training import first_in_training
from .weights import Weight, extent

# Spans begin at multiples of this in the slab, in a page and in the arena. It suits every dtype and vector load. Torch's
# allocators round up to it too, so a span in a block of its own takes no more than planned.
ALIGNMENT = 512
ALIGNMENT_OF_DTYPES = 16  # bytes of the widest number


def aligned(nbytes: int) -> int:
    """Round `nbytes` up to the alignment of spans."""
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


# A parameter with the module that holds it: the module's path, the module, the parameter's full name, the parameter.
Named = tuple[str, nn.Module, str, nn.Parameter]


@dataclass(frozen=True, eq=False)
class Span:
    """A run of bytes that all `weights` view. `owners` are the modules that registered one of them, `owner` is the first."""

    owner: str
    kind: str
    nbytes: int
    start: int  # first byte in the original storage
    found: StorageWeakRef
    weights: tuple[Weight, ...]
    owners: tuple[str, ...]

    def source(self) -> torch.Tensor:
        """Return the original bytes, shape (nbytes,), uint8. Only before the parameters are re-pointed."""
        storage = self.weights[0].parameter.untyped_storage()
        return torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage, self.start, (self.nbytes,), (1,))

    def own(self, kept: torch.Tensor) -> torch.Tensor:
        """Return a storage for this span alone with the bytes of `kept`, shape (nbytes,): the original one if somebody still
        views it, else a new one."""
        storage = torch.UntypedStorage._new_with_weak_ptr(self.found.cdata)
        if storage is None or self.start % ALIGNMENT_OF_DTYPES:
            return kept.clone()
        bytes_found = torch.empty(0, dtype=torch.uint8, device="cpu").set_(storage, self.start, (self.nbytes,), (1,))
        return bytes_found if torch.equal(bytes_found, kept) else bytes_found.copy_(kept)  # a mapped file may be read-only

    @property
    def parameters(self) -> int:
        """Number of elements, shared ones once."""
        return self.nbytes // min(weight.dtype.itemsize for weight in self.weights)


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
    """All tensors of a model: spans that can be paged, and tensors that stay on the device (buffers, parameters that share
    bytes with them, subclasses)."""

    spans: tuple[Span, ...]
    fixed: tuple[torch.Tensor, ...]
    fixed_names: tuple[str, ...]
    names: dict[int, str] = field(repr=False)

    @property
    def weights_bytes(self) -> int:
        """Bytes of all pageable weights, without alignment."""
        return sum(span.nbytes for span in self.spans)

    @property
    def fixed_bytes(self) -> int:
        """Bytes of the tensors that stay on the device, each in a block of its own, shared ones once."""
        plain = spans_of(named(zip(self.fixed_names, self.fixed, strict=True)))
        others = (aligned(tensor.numel() * tensor.element_size()) for tensor in self.fixed if not is_plain(tensor))
        return sum(aligned(span.nbytes) for span in plain) + sum(others)


def take_stock(model: nn.Module, *, loaded: bool = True) -> Inventory:
    """Return the inventory of `model`. Raises BadInput for a model that cannot be paged, before anything is touched.

    If `loaded` is False only sizes matter, and the weights may lie anywhere, on the meta device too.
    """
    _refuse_scripted(model)
    _refuse_training(model)
    names: dict[int, str] = {}
    owners: dict[int, list[str]] = {}
    plain: list[Named] = []
    fixed: dict[int, tuple[str, torch.Tensor]] = {}
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
            if is_plain(parameter):
                plain.append((path, module, full, parameter))
            else:
                fixed[id(parameter)] = full, parameter
        for name, buffer in module._buffers.items():
            if buffer is not None:
                _refuse_unusable(f"buffer {_join(path, name)}", buffer, loaded=loaded)
                fixed.setdefault(id(buffer), (_join(path, name), buffer))
    shared = _shared_with(plain, fixed.values())
    fixed.update((id(parameter), (full, parameter)) for _, _, full, parameter in plain if id(parameter) in shared)
    plain = [entry for entry in plain if id(entry[3]) not in shared]
    fixed_names, tensors = zip(*fixed.values(), strict=True) if fixed else ((), ())
    return Inventory(tuple(spans_of(plain, owners)), tensors, fixed_names, names)


def _shared_with(plain: Sequence[Named], fixed: Iterable[tuple[str, torch.Tensor]]) -> set[int]:
    """Return the ids of parameters that share bytes with a fixed tensor: they cannot come and go without it."""
    others = named(fixed)
    ids = {id(tensor) for _, _, _, tensor in others}
    spans = [{id(weight.parameter) for weight in span.weights} for span in spans_of([*plain, *others])]
    return {key for span in spans if span & ids for key in span - ids}


def named(tensors: Iterable[tuple[str, torch.Tensor]]) -> list[Named]:
    """Return the plain ones of `tensors`, which come with their full names, as `spans_of` takes them."""
    return [
        (full.rpartition(".")[0], nn.Module(), full, cast(nn.Parameter, tensor))
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
    """Return the address of the storage of `tensor`; -1 for sparse and other tensors without one."""
    try:
        return tensor.untyped_storage().data_ptr()
    except (RuntimeError, NotImplementedError):
        return -1


def use_count(storage: torch.UntypedStorage) -> int:
    """Return how many tensors view `storage`."""
    return torch._C._storage_Use_Count(storage._cdata) - 1  # without `storage` itself


def _unit_path(owner: str, spans: Sequence[Span], *, whole: bool) -> str:
    return owner if owner and whole else spans[0].weights[0].name


def spans_of(plain: Sequence[Named], owners: Mapping[int, Sequence[str]] | None = None) -> Iterator[Span]:
    """Merge tensors whose bytes overlap, in the given order. `owners` has, by a tensor's id, the paths of all modules that
    hold it; the default is the path that comes with the tensor."""
    by_storage: dict[int, list[int]] = {}
    for index, (_, _, _, parameter) in enumerate(plain):
        storage = parameter.untyped_storage()
        by_storage.setdefault(storage.data_ptr() or storage._cdata, []).append(index)  # the meta device has no pointers
    groups: list[list[int]] = []
    for members in by_storage.values():
        groups.extend(_overlapping(members, [_range(plain[i][3]) for i in members]))
    for group in sorted(groups, key=min):
        found = [plain[i] for i in sorted(group)]
        holders = (path for entry in found for path in (owners or {}).get(id(entry[3]), [entry[0]]))
        yield _span(found, tuple(dict.fromkeys(holders)))


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


def _span(group: Sequence[Named], owners: tuple[str, ...]) -> Span:
    ranges = [_range(parameter) for _, _, _, parameter in group]
    start, stop = min(low for low, _ in ranges), max(high for _, high in ranges)
    weights = tuple(
        Weight(name, parameter, parameter.dtype, parameter.size(), parameter.stride(), low - start, parameter.is_inference())
        for (_, _, name, parameter), (low, _) in zip(group, ranges, strict=True)
    )
    storage = StorageWeakRef(group[0][3].untyped_storage())
    return Span(group[0][0], type(group[0][1]).__name__, stop - start, start, storage, weights, owners)


def _range(parameter: nn.Parameter) -> tuple[int, int]:
    start = int(parameter.storage_offset()) * parameter.element_size()
    return start, start + extent(parameter.size(), parameter.stride(), parameter.dtype)


def is_plain(parameter: torch.Tensor) -> bool:
    """Tell whether a tensor is only bytes, a shape and strides, so that a view of other bytes can replace it."""
    return (
        type(parameter.data) is torch.Tensor
        and parameter.layout is torch.strided
        and parameter.numel() > 0
        and not parameter.is_conj()
        and not parameter.is_neg()
        and not parameter.is_quantized
    )


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
