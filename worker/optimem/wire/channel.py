"""Frames over a Unix socket: a 4-byte big-endian length, then one message. No torch in here.

Several threads may send, one may receive. The other end must be a process of the same user.
"""

from __future__ import annotations

import contextlib
import math
import os
import socket
import stat
import struct
import sys
import threading
import time
from pathlib import Path

from .protocol import MAX_FRAME, MAX_HELLO, MAX_VALUES, Message, ProtocolError, Terms, decode, encode

_HEADER = struct.Struct(">I")
HELLO_S = 10.0  # for connecting, and from hello to its answer
_SEND_S = 10.0  # how long to wait for a peer that does not read, before there are terms
# Numbers of macOS, which Python's socket module does not name.
_SOL_LOCAL, _LOCAL_PEERCRED = 0, 1


class ChannelClosed(ConnectionError):
    """The other side, or we ourselves, have closed the channel."""


class NotRead(ChannelClosed):
    """The other side has not read for so long that nothing more can be sent to it."""


class Channel:
    """An open connection to a controller."""

    def __init__(self, connection: socket.socket) -> None:
        # The kernel holds a time limit for each direction. Python's own timeout holds for both, and a thread that receives
        # would cut short the send of another thread; so the socket blocks.
        connection.settimeout(None)
        self._connection = connection
        self._sending = threading.Lock()
        self._read = bytearray()  # the beginning of a frame whose end has not come yet
        self._writing_s = _SEND_S
        self._most_bytes, self._most_values = MAX_HELLO, MAX_VALUES

    def agree(self, terms: Terms) -> None:
        """Send under `terms` from now on."""
        self._writing_s = terms.writing_ns / 1e9
        self._most_bytes = min(terms.frame_bytes, MAX_FRAME)
        self._most_values = min(terms.frame_values, MAX_VALUES)

    def send(self, message: Message) -> None:
        """Write one message. Raises ChannelClosed, or ProtocolError for one that may not travel.

        A peer that does not read is NotRead, and leaves a frame half written. Nothing can follow it, so this direction is
        closed; messages of the peer can still be received.
        """
        body = encode(message, most_bytes=self._most_bytes, most_values=self._most_values)
        with self._sending:
            try:
                self._write(_HEADER.pack(len(body)) + body)
            except BlockingIOError as error:
                self._shutdown(socket.SHUT_WR)
                raise NotRead(f"the other side has not read for {self._writing_s:g} s") from error
            except OSError as error:
                raise ChannelClosed(f"the message was not sent: {error}") from error

    def receive(self, timeout: float | None = None) -> Message:
        """Wait at most `timeout` seconds for one message. The part that has come by then is kept for the next call.

        Raises TimeoutError, ChannelClosed, or ProtocolError.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        self._fill(_HEADER.size, deadline)
        (length,) = _HEADER.unpack_from(self._read)
        if length > MAX_FRAME:
            raise ProtocolError(f"a frame declares {length} bytes, the cap is {MAX_FRAME}")
        self._fill(_HEADER.size + length, deadline)
        body = bytes(memoryview(self._read)[_HEADER.size :])
        self._read = bytearray()
        return decode(body)

    def close(self) -> None:
        """End the connection and release a thread that waits in `receive`. Idempotent."""
        self._shutdown(socket.SHUT_RDWR)
        self._connection.close()

    def leave_to_parent(self) -> None:
        """Close a forked child's copy of the connection, which stays open at the parent's."""
        self._connection.close()

    def _shutdown(self, direction: int) -> None:
        with contextlib.suppress(OSError):  # closed already, by whichever side
            self._connection.shutdown(direction)

    def _write(self, frame: bytes) -> None:
        """Write all of `frame` within the time that a peer has to read it, or raise BlockingIOError."""
        deadline = time.monotonic() + self._writing_s
        rest = memoryview(frame)
        while rest:
            try:
                self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(_left(deadline)))
                rest = rest[self._connection.send(rest) :]
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise

    def _fill(self, count: int, deadline: float | None) -> None:
        """Read until `count` bytes of a frame are there; memory grows with what arrives, not with what was declared."""
        while len(self._read) < count:
            try:
                self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(_left(deadline)))
                piece = self._connection.recv(min(count - len(self._read), 1 << 16))
            except BlockingIOError as error:
                if deadline is not None and time.monotonic() >= deadline:
                    raise TimeoutError("no message came in time") from error
                continue
            except OSError as error:
                raise ChannelClosed(f"the connection broke: {error}") from error
            if not piece:
                raise ChannelClosed("the other side closed the connection")
            self._read += piece


def _left(deadline: float | None) -> float:
    """Return the seconds until `deadline`, at least a microsecond; without one 0, which the kernel reads as for ever."""
    return 0.0 if deadline is None else max(deadline - time.monotonic(), 1e-6)


def _timeval(seconds: float) -> bytes:
    """Return the kernel's form of `seconds`, rounded up, so that only 0 is 0."""
    return struct.pack("ll", *divmod(math.ceil(seconds * 1e6), 1_000_000))


def default_socket() -> str:
    """Return the path at which the user's own controller listens unless another one is named. Go's side derives the same;
    `tempfile` would look further than TMPDIR."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    temporary = os.environ.get("TMPDIR") or "/tmp"  # noqa: S108 - the directory in it is the user's alone
    directory = Path(runtime) / "optimem" if runtime else Path(temporary) / f"optimem-{os.getuid()}"
    return str(directory / "controller.sock")


def connect(path: str, timeout: float) -> Channel:
    """Connect to the controller at `path`. Raises OSError where nobody of ours listens."""
    _refuse_open_directory(path)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout)
        connection.connect(path)
        owner = _peer(connection)
        if owner != os.getuid():
            raise PermissionError(f"the controller at {path} belongs to user {owner}")
        return Channel(connection)
    except BaseException:
        connection.close()
        raise


def _refuse_open_directory(path: str) -> None:
    directory = os.stat(os.path.dirname(path) or ".")
    if directory.st_uid != os.getuid() or stat.S_IMODE(directory.st_mode) & 0o077:
        raise PermissionError(f"the directory of {path} is not the user's alone; a controller makes it with mode 0700")


def _peer(connection: socket.socket) -> int:
    """Return the user id of the process at the other end."""
    if sys.platform == "darwin":
        credentials = connection.getsockopt(_SOL_LOCAL, _LOCAL_PEERCRED, 76)  # struct xucred: version, uid, groups
        return int(struct.unpack_from("=II", credentials)[1])
    if not hasattr(socket, "SO_PEERCRED"):
        raise PermissionError(f"{sys.platform} does not tell who listens at a socket: use Linux or macOS")
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", credentials)[1])  # struct ucred: pid, uid, gid
