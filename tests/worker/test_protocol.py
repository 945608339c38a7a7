"""The bytes on the wire are those of the Go side, and nothing else gets in."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimem import protocol
from optimem.protocol import ProtocolError, decode, encode

GOLDEN = Path(__file__).resolve().parents[2] / "ipc" / "testdata" / "golden"
VECTORS = sorted(path.stem for path in GOLDEN.glob("*.hex"))


def values(thing: Any) -> Any:
    """Return the values of a message or of its JSON twin, names left out."""
    if dataclasses.is_dataclass(thing):
        return [values(getattr(thing, field.name)) for field in dataclasses.fields(thing)]
    if isinstance(thing, dict):
        return [values(item) for item in thing.values()]
    return [values(item) for item in thing] if isinstance(thing, list) else thing


def test_there_are_vectors() -> None:
    assert {name.split("_")[0] for name in VECTORS} == set(protocol._KINDS)


@pytest.mark.parametrize("name", VECTORS)
def test_golden_vectors_are_read_and_written_as_by_go(name: str) -> None:
    frame = bytes.fromhex((GOLDEN / f"{name}.hex").read_text())
    message = decode(frame[4:])
    assert values(message) == values(json.loads((GOLDEN / f"{name}.json").read_text()))
    body = encode(message)
    assert len(body).to_bytes(4, "big") + body == frame


@pytest.mark.parametrize(
    ("frame", "match"),
    [
        (["hi", []], "no message 'hi'"),
        (["bye", []], "bye must be an array of 1"),
        (["bye", ["a", "b"]], "bye must be an array of 1"),
        (["bye", [7]], r"bye\.reason must be str, not int"),
        (["bye", [b"raw"]], r"bye\.reason must be str, not bytes"),
        (["shrink", [-1, 0]], r"shrink\.bytes is -1"),
        (["shrink", [1.0, 0]], r"shrink\.bytes must be int, not float"),
        (["shrink", [True, 0]], r"shrink\.bytes must be int, not bool"),
        (["welcome", ["s", None]], r"welcome\.measure must be an array"),
        (["welcome", ["s", [3]]], r"welcome\.measure\[\] must be str"),
        ({"bye": ["a"]}, "a name and a message"),
        ("bye", "a name and a message"),
    ],
)
def test_what_the_protocol_does_not_have_is_named(frame: Any, match: str) -> None:
    with pytest.raises(ProtocolError, match=match):
        decode(msgpack.packb(frame))


def test_bytes_behind_a_message_are_refused() -> None:
    with pytest.raises(ProtocolError):
        decode(encode(protocol.Bye("x")) + b"\0")


@given(st.binary(max_size=200))
def test_noise_is_a_protocol_error_and_nothing_else(noise: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        decode(noise)


@pytest.mark.parametrize("value", [-1, 1 << 64, "7", 1.0, None])
def test_values_that_may_not_travel_are_not_sent(value: Any) -> None:
    with pytest.raises(ProtocolError, match=r"shrink\.bytes"):
        encode(protocol.Shrink(bytes=value, within_ns=0))


numbers = st.integers(0, (1 << 64) - 1)
copies = st.builds(protocol.Copy, numbers, numbers, numbers, numbers, numbers)


@given(
    st.builds(
        protocol.Manifest,
        st.text(),
        st.builds(protocol.Wish, st.text(), st.text(), numbers, st.text()),
        st.booleans(),
        numbers,
        numbers,
        numbers,
        numbers,
        st.lists(
            st.builds(
                protocol.Unit,
                st.text(),
                st.text(),
                numbers,
                numbers,
                st.lists(st.text()),
                st.lists(st.builds(protocol.Use, numbers, numbers)),
            )
        ),
    )
)
def test_what_is_written_is_read_back(message: protocol.Manifest) -> None:
    assert decode(encode(message)) == message
