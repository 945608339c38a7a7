"""The device bytes that weights may take: what was granted, what is owed, and what a forward fell short of."""

from __future__ import annotations

from ..wire.contact import Contact
from .shortage import Shortage


class Allowance:
    """Sizes are bytes. Growing is a grant of more."""

    def __init__(self, contact: Contact) -> None:
        self._contact = contact
        self._granted = 0
        self.given = 0  # asked back by the controller since the latest grant, and answered
        self.short: Shortage | None = None  # what the next forward must be spared

    def grant(self, nbytes: int) -> None:
        """Let weights take `nbytes`, under a new plan or while a forward is recorded."""
        self._granted, self.given = nbytes, 0

    def room(self) -> int:
        """Return what weights may take now."""
        return max(1, self._granted - self.given - self.owed())

    def owed(self) -> int:
        """Return the bytes that the controller wants back and has not got yet."""
        return self._contact.session.debt

    def settle(self, asked: int, freed: int) -> None:
        """Note that weights gave `freed` bytes back of the bytes that were `asked`: as many as could be."""
        self._contact.session.settle(asked)
        self.given += max(freed, asked)

    def take_short(self) -> Shortage | None:
        """Return what the next forward must be spared, once."""
        short, self.short = self.short, None
        return short
