"""Frames over a Unix socket: a 4-byte big-endian length, then one message. No torch in here.

Several threads may send, one may receive. The other end must be a process of the same user.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import struct
import sys
import tempfile
import threading
from pathlib import Path

from .protocol import MAX_FRAME, Message, ProtocolError, decode, encode

_HEADER = struct.Struct(">I")
_SEND_S = 10.0  # how long a peer that does not read may hold up a sender
# Numbers of macOS, which Python's socket module does not name.
_SOL_LOCAL, _LOCAL_PEERCRED = 0, 1


class ChannelClosed(ConnectionError):
    """The other side, or we ourselves, have closed the channel."""


class Channel:
    """An open connection to a controller."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._sending = threading.Lock()

    def send(self, message: Message) -> None:
        """Write one message. Raises ChannelClosed, or ProtocolError for one that may not travel."""
        body = encode(message)
        with self._sending:
            try:
                self._connection.sendall(_HEADER.pack(len(body)) + body)
            except OSError as error:
                raise ChannelClosed(f"the message was not sent: {error}") from error

    def receive(self, timeout: float | None = None) -> Message:
        """Wait for one message, at most `timeout` seconds for its beginning.

        Raises TimeoutError, ChannelClosed, or ProtocolError.
        """
        try:
            self._connection.settimeout(timeout)
        except OSError as error:
            raise ChannelClosed("the channel is closed") from error
        (length,) = _HEADER.unpack(self._exactly(_HEADER.size))
        if length > MAX_FRAME:
            raise ProtocolError(f"a frame declares {length} bytes, the cap is {MAX_FRAME}")
        return decode(self._exactly(length))

    def close(self) -> None:
        """End the connection; a thread that waits in `receive` is released. Idempotent."""
        with contextlib.suppress(OSError):  # closed already, by whichever side
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()

    def _exactly(self, count: int) -> bytes:
        """Read `count` bytes; memory grows with what arrives, not with what was declared."""
        read = bytearray()
        while len(read) < count:
            try:
                piece = self._connection.recv(min(count - len(read), 1 << 16))
            except TimeoutError:
                raise
            except OSError as error:
                raise ChannelClosed(f"the connection broke: {error}") from error
            if not piece:
                raise ChannelClosed("the other side closed the connection")
            read += piece
        return bytes(read)


def default_socket() -> str:
    """Return the path at which the user's own controller listens where nobody names another."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    directory = Path(runtime) / "optimem" if runtime else Path(tempfile.gettempdir()) / f"optimem-{os.getuid()}"
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
        # A send limit of its own, so that one direction may wait for ever while the other may not.
        seconds = int(_SEND_S)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", seconds, 0))
        connection.settimeout(None)
    except BaseException:
        connection.close()
        raise
    return Channel(connection)


def _refuse_open_directory(path: str) -> None:
    directory = os.stat(os.path.dirname(path) or ".")
    if directory.st_uid != os.getuid() or stat.S_IMODE(directory.st_mode) & 0o077:
        raise PermissionError(f"the directory of {path} is not the user's alone; a controller makes it with mode 0700")


def _peer(connection: socket.socket) -> int:
    """Return the user id of the process at the other end."""
    if sys.platform == "darwin":
        credentials = connection.getsockopt(_SOL_LOCAL, _LOCAL_PEERCRED, 76)  # struct xucred: version, uid, groups
        return int(struct.unpack_from("=II", credentials)[1])
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", credentials)[1])
