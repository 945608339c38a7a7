"""The bytes on the wire are those of the Go side, and nothing else gets in."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import tracemalloc
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimem.wire import channel, protocol
from optimem.wire.protocol import ProtocolError, decode, encode

TESTDATA = Path(__file__).resolve().parents[2] / "ipc" / "testdata"
GOLDEN = TESTDATA / "golden"
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


def test_the_limits_before_the_welcome_are_those_of_the_go_side() -> None:
    assert json.loads((TESTDATA / "limits.json").read_text()) == {
        "Protocol": protocol.VERSION,
        "FrameBytes": protocol.MAX_FRAME,
        "FrameValues": protocol.MAX_VALUES,
        "HelloBytes": protocol.MAX_HELLO,
        "HelloNS": channel.HELLO_S * 1e9,
        "WritingNS": channel._SEND_S * 1e9,
    }


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
        (["outcome", [1, 1, "equal", None]], r"outcome\.notes must be an array"),
        (["outcome", [1, 1, "equal", [3]]], r"outcome\.notes\[\] must be str"),
        (["welcome", ["s", []]], r"welcome\.terms must be an array of 5"),
        (["refused", [1, "bad_input"]], "refused must be an array of 3"),
        (["short", ["4 MiB", 0, 0, 0]], r"short\.requested_bytes must be int, not str"),
        ({"bye": ["a"]}, "a name and a message"),
        ("bye", "a name and a message"),
    ],
)
def test_what_the_protocol_does_not_have_is_named(frame: Any, match: str) -> None:
    with pytest.raises(ProtocolError, match=match):
        decode(msgpack.packb(frame))


SHRINK, BYE, NOTES = b"\x92\xa6shrink", b"\x92\xa3bye", b"\x92\xa7outcome\x94\0\0\xa0"


@pytest.mark.parametrize(
    "body",
    [
        SHRINK + b"\x92\xcc\x07\x00",
        SHRINK + b"\x92\xcd\x00\xff\x00",
        SHRINK + b"\x92\xcf\x00\x00\x00\x00\xff\xff\xff\xff\x00",
        SHRINK + b"\x92\xd0\x07\x00",
        BYE + b"\x91\xd9\x01x",
        BYE + b"\xdc\x00\x01\xa0",
    ],
)
def test_a_message_has_one_way_to_be_written(body: bytes) -> None:
    with pytest.raises(ProtocolError, match="shortest form"):
        decode(body)


@pytest.mark.parametrize(
    "body",
    [
        NOTES + b"\xdd" + (1 << 21).to_bytes(4, "big") + b"\xa0" * (1 << 21),
        b"\x92\xa8measured\x9a" + (b"\xdd" + (1 << 19).to_bytes(4, "big") + b"\0" * (1 << 19)) * 3 + b"\x90\0\0\0",
    ],
    ids=["in one list", "in three together"],
)
def test_more_than_a_million_values_are_too_many(body: bytes) -> None:
    with pytest.raises(ProtocolError, match="1048576"):
        decode(body)


@pytest.mark.parametrize("start", [b"", BYE, BYE + b"\x91", NOTES, b"\x92\xa4plan\x9c\x01\0"])
@pytest.mark.parametrize("header", [b"\xdd", b"\xdf", b"\xdb", b"\xc6", b"\xc9"])
def test_lies_are_refused_before_anything_is_allocated(start: bytes, header: bytes) -> None:
    lie = start + header + b"\xff\xff\xff\xff"
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError):
            decode(lie)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


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


NOTHING: Any = None
TEXT: Any = "abc"
NUMBER: Any = 1


@pytest.mark.parametrize(
    ("message", "match"),
    [
        (protocol.Outcome(0, 0, "", TEXT), r"outcome\.notes must be list, not str"),
        (protocol.Outcome(0, 0, "", NOTHING), r"outcome\.notes must be list, not NoneType"),
        (protocol.Outcome(0, 0, "", [NUMBER]), r"outcome\.notes\[\] must be str, not int"),
        (protocol.Welcome("s", NOTHING), r"welcome\.terms must be Terms, not NoneType"),
        (protocol.Manifest("m", NOTHING, False, 0, 0, 0, 0, 0, []), r"manifest\.wish must be Wish, not NoneType"),
        (protocol.Bye("\udcff"), r"bye\.reason is not valid UTF-8"),
        (protocol.Wish("page", "", 0, ""), "Wish is no message"),
        (protocol.Bye("x" * protocol.MAX_FRAME), "above the cap"),
        (protocol.Measured([0] * (1 << 19), [0] * (1 << 19), [], [], 0, 0, 0, 0, 0, []), "more than 1048576 values"),
    ],
)
def test_what_does_not_fit_its_annotation_is_named(message: Any, match: str) -> None:
    with pytest.raises(ProtocolError, match=match):
        encode(message)


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
