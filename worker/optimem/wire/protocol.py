"""The messages between a worker and a controller. No torch in here; `docs/protocol.md` describes the conversation.

Every message is a frozen dataclass, written as an array in the order of its fields. `ipc/message.go` has the same messages,
and `ipc/testdata/golden` holds bytes that both sides are tested with. Incoming frames are checked against the annotations:
the count, type and range of every value, and that each value has its shortest form.
"""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import dataclass
from typing import Any

import msgpack

VERSION = 5
MAX_FRAME = 16 << 20  # bytes of a frame's body
MAX_HELLO = 64 << 10  # bytes of a body before the welcome
MAX_VALUES = 1 << 20  # in all arrays of a frame together
_MAX_UINT = (1 << 64) - 1


class ProtocolError(ValueError):
    """A frame is not what the protocol allows. The text names message and field."""


@dataclass(frozen=True)
class Device:
    """A card as torch sees it."""

    kind: str
    index: int
    uuid: str
    name: str
    total_bytes: int
    free_bytes: int  # that this process could still take
    simulated: bool


@dataclass(frozen=True)
class Hello:
    """Opens a session. To the controller."""

    protocol: int
    python: str
    torch: str
    device: Device


@dataclass(frozen=True)
class Terms:
    """The constants that both sides go by from the welcome on."""

    planning_ns: int  # how long to wait for a plan before going on without one
    writing_ns: int  # how long to wait for a controller that does not read
    frame_bytes: int  # largest body that the controller reads
    frame_values: int  # most values in a frame that the controller reads
    timed_forwards: int  # how many forwards under a plan to time step by step


@dataclass(frozen=True)
class Welcome:
    """Accepts a session. To the worker."""

    session: str
    terms: Terms


@dataclass(frozen=True)
class Wish:
    """The arguments of page or chunk, sizes as text in the user's words."""

    mode: str
    vram: str
    max_layer_size: int
    max_capacity: str


@dataclass(frozen=True)
class Use:
    """An interval of steps, both ends included."""

    first: int
    last: int


@dataclass(frozen=True)
class Unit:
    """The smallest set of weights that must move together."""

    path: str
    kind: str
    bytes: int
    parameters: int
    readers: list[str]
    uses: list[Use]


@dataclass(frozen=True)
class Manifest:
    """The units of the model. To the controller."""

    model: str
    wish: Wish
    recorded: bool
    weights_bytes: int
    kept_bytes: int  # of weights that are not paged: they stay on the device whole
    buffer_bytes: int  # of all that stays there beside pages, those weights included
    calls: int
    steps: int
    units: list[Unit]


@dataclass(frozen=True)
class Measured:
    """Times. To the controller."""

    step_compute_ns: list[int]
    step_cpu_ns: list[int]
    step_activations: list[int]
    step_crossings: list[int]
    link_latency_ns: int
    link_bytes_per_second: int
    free_bytes: int
    crossing_latency_ns: int  # of activations that change sides
    crossing_bytes_per_second: int  # 0: as over the link
    held: list[int]  # units of the latest manifest whose bytes are on the device now, in order


@dataclass(frozen=True)
class Page:
    """A run of units that moves as one copy."""

    units: list[int]
    bytes: int
    placement: str


@dataclass(frozen=True)
class Copy:
    """Brings a streamed page into the arena for one use. It may write once the copy `after` places earlier in the ring and
    all copies before that one have been released."""

    page: int
    offset: int
    first: int
    last: int
    after: int


@dataclass(frozen=True)
class Plan:
    """Answers a manifest and its times, or replaces an earlier plan. To the worker."""

    version: int
    answers: int  # how many Measured had come when it was made
    pages: list[Page]
    copies: list[Copy]
    laps: int  # forwards that one turn of the ring takes
    eviction: list[int]
    arena_bytes: int
    resident_bytes: int
    budget_bytes: int
    reserve_bytes: int
    period_ns: int
    bound_ns: int


@dataclass(frozen=True)
class Refused:
    """Answers a manifest, or a manifest and its times, that no plan can be made from. To the worker. The session goes on
    under the last plan; the worker may ask again."""

    answers: int  # as in Plan
    code: str
    text: str


@dataclass(frozen=True)
class Report:
    """How the plan fares. To the controller."""

    plan_version: int
    forwards: int
    period_ns: int
    stall_ns: list[int]
    h2d_bytes: int
    misses: int
    device_bytes: int
    device_peak_bytes: int
    activation_bytes: int
    pinned_bytes: int


@dataclass(frozen=True)
class Short:
    """A forward ran out of device memory. To the controller. The plan that the worker asks for next spares the bytes."""

    requested_bytes: int  # by the allocation that failed
    free_bytes: int  # at that moment
    weights_bytes: int  # that weights held
    activation_bytes: int  # that everything else needs at least


@dataclass(frozen=True)
class Outcome:
    """The findings of a run that optimemctl drives. To the controller."""

    forwards: int
    plain_period_ns: int
    equal: str
    notes: list[str]


@dataclass(frozen=True)
class Shrink:
    """Asks for device memory back. To the worker."""

    bytes: int
    within_ns: int  # from receipt; 0: as soon as possible


@dataclass(frozen=True)
class Stop:
    """Ends a session. To the worker."""

    reason: str


@dataclass(frozen=True)
class Failure:
    """Ends a session, and says what went wrong and what to do next. Both ways."""

    code: str
    text: str


@dataclass(frozen=True)
class Bye:
    """Closes a session in good order. Both ways."""

    reason: str


Message = Hello | Welcome | Manifest | Measured | Plan | Refused | Report | Short | Outcome | Shrink | Stop | Failure | Bye

_NAMES: dict[type, str] = {kind: kind.__name__.lower() for kind in typing.get_args(Message)}
_KINDS: dict[str, type] = {name: kind for kind, name in _NAMES.items()}
_FIELDS: dict[type, list[tuple[str, Any]]] = {}


def encode(message: Message, *, most_bytes: int = MAX_FRAME, most_values: int = MAX_VALUES) -> bytes:
    """Return the body of a frame. Raises ProtocolError for a value that may not travel, and for a frame of more bytes or
    values than the reader takes."""
    name = _NAMES.get(type(message))
    if name is None:
        raise ProtocolError(f"{type(message).__name__} is no message of the protocol")
    frame = [name, _flat(message, type(message), name)]
    body: bytes = msgpack.packb(frame, use_bin_type=True)
    if len(body) > most_bytes:
        raise ProtocolError(f"{name} takes {len(body)} bytes, above the cap of {most_bytes}")
    if len(body) > most_values and _values(frame) > most_values:  # a value takes a byte or more
        raise ProtocolError(f"{name} has more than {most_values} values")
    return body


def _values(frame: list[Any]) -> int:
    return len(frame) + sum(_values(item) for item in frame if isinstance(item, list))


def decode(body: bytes) -> Message:
    """Return the message of a frame's body. Raises ProtocolError for anything that the protocol does not allow."""
    try:
        frame = msgpack.unpackb(body, raw=False, ext_hook=_no_extension, list_hook=_Tally(), max_array_len=MAX_VALUES)
    except (ValueError, TypeError, RecursionError) as error:  # msgpack's own errors are ValueErrors
        raise ProtocolError(f"a frame of {len(body)} bytes cannot be read: {error}") from error
    if not isinstance(frame, list) or len(frame) != 2 or not isinstance(frame[0], str):
        raise ProtocolError("a frame must be a name and a message")
    kind = _KINDS.get(frame[0])
    if kind is None:
        raise ProtocolError(f"there is no message {frame[0]!r}")
    message: Message = _built(frame[1], kind, frame[0])
    if msgpack.packb(frame, use_bin_type=True) != body:
        raise ProtocolError(f"{frame[0]} has a number or a length that is not in its shortest form")
    return message


class _Tally:
    """Counts values while they are read, and refuses more than the cap."""

    def __init__(self) -> None:
        self._values = 0

    def __call__(self, values: list[Any]) -> list[Any]:
        self._values += len(values)
        if self._values > MAX_VALUES:
            raise ProtocolError(f"it has more than {MAX_VALUES} values")
        return values


def _flat(value: Any, kind: Any, where: str) -> Any:
    """Turn a value into lists for msgpack, and check it against its annotation."""
    if dataclasses.is_dataclass(kind):
        _must_be(value, kind, where)
        return [_flat(getattr(value, name), of, f"{where}.{name}") for name, of in _fields(kind)]
    if typing.get_origin(kind) is list:
        _must_be(value, list, where)
        (of,) = typing.get_args(kind)
        return [_flat(item, of, f"{where}[]") for item in value]
    return _checked(value, kind, where)


def _built(value: Any, kind: Any, where: str) -> Any:
    """Turn the lists that msgpack read into a value of the annotation."""
    if dataclasses.is_dataclass(kind):
        fields = _fields(kind)
        if not isinstance(value, list) or len(value) != len(fields):
            raise ProtocolError(f"{where} must be an array of {len(fields)} fields")
        parts = [_built(item, of, f"{where}.{name}") for item, (name, of) in zip(value, fields, strict=True)]
        make: Any = kind
        return make(*parts)
    if typing.get_origin(kind) is list:
        if not isinstance(value, list):
            raise ProtocolError(f"{where} must be an array, not {type(value).__name__}")
        (of,) = typing.get_args(kind)
        return [_built(item, of, f"{where}[]") for item in value]
    return _checked(value, kind, where)


def _checked(value: Any, kind: Any, where: str) -> Any:
    _must_be(value, kind, where)
    if kind is int and not 0 <= value <= _MAX_UINT:
        raise ProtocolError(f"{where} is {value}, out of the range of an unsigned 64-bit integer")
    if kind is str:
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise ProtocolError(f"{where} is not valid UTF-8") from error
    return value


def _must_be(value: Any, kind: Any, where: str) -> None:
    if type(value) is not kind:
        raise ProtocolError(f"{where} must be {kind.__name__}, not {type(value).__name__}")


def _fields(kind: Any) -> list[tuple[str, Any]]:
    """Return name and annotation of every field, resolved once."""
    if kind not in _FIELDS:
        hints = typing.get_type_hints(kind)
        _FIELDS[kind] = [(field.name, hints[field.name]) for field in dataclasses.fields(kind)]
    return _FIELDS[kind]


def _no_extension(code: int, data: bytes) -> Any:
    raise ProtocolError(f"extension {code} is not of the protocol")
