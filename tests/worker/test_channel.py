"""Frames over a socket: whole or not at all, and only with a controller of the same user."""

from __future__ import annotations

import json
import os
import socket
import struct
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from optimem.wire import channel
from optimem.wire.protocol import MAX_FRAME, MAX_HELLO, MAX_VALUES, Bye, Measured, ProtocolError, Stop, Terms, encode


@pytest.fixture
def ends(tmp_path: Path) -> Iterator[tuple[channel.Channel, socket.socket]]:
    """A channel and the bare socket at its other end."""
    tmp_path.chmod(0o700)
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        ours = channel.connect(path, 5)
        other, _ = listener.accept()
        with other:
            yield ours, other
        ours.close()


LARGE = 4 << 20  # more than a socket holds


def terms(writing_ns: int = 10**10, frame_bytes: int = MAX_FRAME, frame_values: int = MAX_VALUES) -> Terms:
    return Terms(60 * 10**9, writing_ns, frame_bytes, frame_values, timed_forwards=3)


def received(other: socket.socket, count: int) -> bytes:
    """Return `count` bytes, or what comes before the end."""
    read = bytearray()
    while len(read) < count and (piece := other.recv(1 << 16)):
        read += piece
    return bytes(read)


def framed(body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + body


def test_a_message_arrives_in_pieces(ends: tuple[channel.Channel, socket.socket]) -> None:
    ours, other = ends
    for byte in framed(encode(Stop("enough"))):
        other.sendall(bytes([byte]))
    assert ours.receive(5) == Stop("enough")


def test_what_is_sent_is_one_frame(ends: tuple[channel.Channel, socket.socket]) -> None:
    ours, other = ends
    ours.send(Bye("done"))
    assert other.recv(1000) == framed(encode(Bye("done")))


def test_silence_ends_with_a_timeout(ends: tuple[channel.Channel, socket.socket]) -> None:
    with pytest.raises(TimeoutError):
        ends[0].receive(0.01)


def test_what_came_before_a_timeout_is_not_lost(ends: tuple[channel.Channel, socket.socket]) -> None:
    ours, other = ends
    frame = framed(encode(Stop("enough")))
    for cut in (2, 4, 9, len(frame) - 1):
        other.sendall(frame[:cut])
        with pytest.raises(TimeoutError):
            ours.receive(0.01)
        other.sendall(frame[cut:])
        assert ours.receive(5) == Stop("enough")


def test_messages_that_come_together_are_received_one_by_one(ends: tuple[channel.Channel, socket.socket]) -> None:
    ours, other = ends
    other.sendall(framed(encode(Stop("a"))) + framed(encode(Bye("b"))))
    assert [ours.receive(5), ours.receive(5)] == [Stop("a"), Bye("b")]


def test_a_wait_for_messages_does_not_cut_a_send_short(ends: tuple[channel.Channel, socket.socket]) -> None:
    ours, other = ends
    ours.agree(terms())
    with pytest.raises(TimeoutError):
        ours.receive(0.01)
    sender = threading.Thread(target=ours.send, args=[Bye("x" * LARGE)])
    sender.start()
    sender.join(0.1)
    assert sender.is_alive()  # it waits for its reader
    assert received(other, len(framed(encode(Bye("x" * LARGE))))) == framed(encode(Bye("x" * LARGE)))
    sender.join(5)
    assert not sender.is_alive()


def test_a_peer_that_does_not_read_is_given_up_after_the_time_of_the_terms(
    ends: tuple[channel.Channel, socket.socket],
) -> None:
    ours, other = ends
    ours.agree(terms(writing_ns=50_000_000))
    with pytest.raises(channel.NotRead, match=r"has not read for 0\.05 s"):
        ours.send(Bye("x" * LARGE))
    with pytest.raises(channel.ChannelClosed):  # nothing may follow half a frame
        ours.send(Bye("more"))
    other.sendall(framed(encode(Stop("enough"))))
    assert ours.receive(5) == Stop("enough")
    assert framed(encode(Bye("x" * LARGE))).startswith(received(other, LARGE * 2))


@pytest.mark.parametrize(
    ("agreed", "message", "match"),
    [
        (None, Bye("x" * MAX_HELLO), f"above the cap of {MAX_HELLO}"),
        (terms(frame_bytes=100), Bye("x" * 100), "bye takes 10[0-9] bytes, above the cap of 100"),
        (terms(frame_values=50), Measured([1] * 50, [], [], [], 0, 0, 0, 0, 0, []), "measured has more than 50 values"),
        (terms(frame_bytes=1 << 60), Bye("x" * MAX_FRAME), f"above the cap of {MAX_FRAME}"),
    ],
    ids=["before the terms", "bytes", "values", "terms above the protocol's"],
)
def test_no_frame_is_sent_that_the_controller_would_not_read(
    ends: tuple[channel.Channel, socket.socket], agreed: Terms | None, message: Any, match: str
) -> None:
    ours, other = ends
    if agreed is not None:
        ours.agree(agreed)
    with pytest.raises(ProtocolError, match=match):
        ours.send(message)
    ours.send(Bye("fits"))
    assert other.recv(1000) == framed(encode(Bye("fits")))


def test_frames_of_many_senders_arrive_whole(ends: tuple[channel.Channel, socket.socket]) -> None:
    ours, other = ends
    theirs = channel.Channel(other)

    def say() -> None:
        for _ in range(20):
            ours.send(Bye("x" * 50_000))

    senders = [threading.Thread(target=say) for _ in range(4)]
    for sender in senders:
        sender.start()
    for _ in range(80):
        assert theirs.receive(5) == Bye("x" * 50_000)
    for sender in senders:
        sender.join(5)


def test_a_frame_above_the_cap_is_refused_from_its_header(ends: tuple[channel.Channel, socket.socket]) -> None:
    ours, other = ends
    other.sendall(((16 << 20) + 1).to_bytes(4, "big"))
    with pytest.raises(ProtocolError, match="cap"):
        ours.receive(5)


@pytest.mark.parametrize("sent", [b"", b"\0\0", b"\0\0\0\x09\x92"])
def test_an_end_in_the_middle_is_a_closed_channel(ends: tuple[channel.Channel, socket.socket], sent: bytes) -> None:
    ours, other = ends
    other.sendall(sent)
    other.close()
    with pytest.raises(channel.ChannelClosed):
        ours.receive(5)


def test_close_releases_who_waits(ends: tuple[channel.Channel, socket.socket]) -> None:
    ours, _ = ends
    released = threading.Event()

    def wait() -> None:
        with pytest.raises(channel.ChannelClosed):
            ours.receive(None)
        released.set()

    thread = threading.Thread(target=wait)
    thread.start()
    ours.close()
    ours.close()
    thread.join(5)
    assert released.is_set()
    with pytest.raises(channel.ChannelClosed):
        ours.send(Bye("late"))


def test_a_socket_in_a_directory_that_others_can_open_is_not_trusted(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with pytest.raises(PermissionError, match="0700"):
        channel.connect(str(tmp_path / "s"), 1)


def listening(directory: Path) -> tuple[str, socket.socket]:
    directory.chmod(0o700)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(directory / "s"))
    listener.listen()
    return str(directory / "s"), listener


def test_a_controller_of_another_user_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, listener = listening(tmp_path)
    monkeypatch.setattr(channel, "_peer", lambda connection: os.getuid() + 1)
    with listener, pytest.raises(PermissionError, match=f"belongs to user {os.getuid() + 1}"):
        channel.connect(path, 5)


class Credentials:
    """A connection whose kernel answers as macOS does: struct xucred with version, uid, number of groups, groups."""

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        assert (level, option) == (0, 1)
        answer = struct.pack("=IIh2x16I", 0, 501, 1, 20, *[0] * 15)
        assert size == len(answer)
        return answer


def test_macos_names_the_peer_in_a_struct_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert channel._peer(Credentials()) == 501  # type: ignore[arg-type]


def test_a_system_that_does_not_name_the_peer_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, listener = listening(tmp_path)
    monkeypatch.setattr(sys, "platform", "plan9")
    monkeypatch.delattr(socket, "SO_PEERCRED", raising=False)
    with listener, pytest.raises(PermissionError, match="plan9 does not tell"):
        channel.connect(path, 5)


def test_the_default_socket_is_that_of_the_go_side(monkeypatch: pytest.MonkeyPatch) -> None:
    places = json.loads((Path(__file__).resolve().parents[2] / "ipc" / "testdata" / "default_socket.json").read_text())
    monkeypatch.setenv("TEMP", "/nor/this/one")
    for place in places:
        for name in ("XDG_RUNTIME_DIR", "TMPDIR"):
            monkeypatch.setenv(name, place[name])
        assert channel.default_socket() == place["Path"].replace("UID", str(os.getuid()))
