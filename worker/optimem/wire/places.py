"""Where a controller is to be found: where OPTIMEM_SOCKET says, at the user's own socket, or started by this process."""

from __future__ import annotations

import os
from dataclasses import dataclass

from ..errors import ControllerError
from . import channel, private


@dataclass(frozen=True)
class Place:
    """A socket; without a `path` that of the private controller, which is started where it does not run."""

    path: str
    advice: str  # where nobody answers

    def dial(self) -> channel.Channel:
        """Connect to the controller that is there now. Raises ControllerError."""
        path = self.path or private.socket()
        try:
            return channel.connect(path, channel.HELLO_S)
        except (OSError, channel.ChannelClosed) as error:
            raise ControllerError(f"no controller answers at {path} ({error}); {self.advice}") from error


PRIVATE = Place("", "it is the private one of this process and has ended: try again, or start another: optimemctl serve")


def find() -> tuple[Place, channel.Channel]:
    """Connect to the controller named by OPTIMEM_SOCKET, else to the user's, else to a private one started for us. Raises
    ControllerError."""
    named = os.environ.get("OPTIMEM_SOCKET")
    if named:
        place = Place(named, f"start one with 'optimemctl serve --socket {named}' or unset OPTIMEM_SOCKET")
        return place, place.dial()
    users = Place(channel.default_socket(), "start one: optimemctl serve")
    try:
        return users, users.dial()
    except ControllerError:
        return PRIVATE, PRIVATE.dial()
