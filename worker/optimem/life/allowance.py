"""The device bytes that weights may take: what was granted, what is owed, and what a forward fell short of."""

from __future__ import annotations

from ..wire.session import Session
from .shortage import Shortage


class Allowance:
    """Sizes are bytes. Growing is a grant of more."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._granted = 0
        self._owed = 0  # what the controller wants back, and has not got yet
        self.given = 0  # what it has got since the latest grant
        self.short: Shortage | None = None  # what the next forward must be spared

    def grant(self, nbytes: int) -> None:
        """Let weights take `nbytes`, under a new plan or while a forward is recorded."""
        self._granted, self.given = nbytes, 0

    def room(self) -> int:
        """Return what weights may take now."""
        return max(1, self._granted - self.given - self.owed())

    def owed(self) -> int:
        """Return what is to be given back, requests that have come meanwhile included."""
        self._owed += self._session.bytes_to_give_back()
        return self._owed

    def settle(self, freed: int) -> None:
        """Note that weights have given back what they could: `freed` bytes."""
        self.given += max(freed, self._owed)
        self._owed = 0

    def take_short(self) -> Shortage | None:
        """Return what the next forward must be spared, once."""
        short, self.short = self.short, None
        return short
