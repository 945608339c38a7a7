"""Frames over a socket: whole or not at all, and only with a controller of the same user."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from optimem import channel
from optimem.protocol import Bye, ProtocolError, Stop, encode


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
