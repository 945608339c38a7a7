"""A few words of every weight, to notice writes that torch does not count: through `.data`, through numpy, to parameters
made in inference mode.

What rewrites a weight, as merging an adapter does, changes nearly every word of it, so that a few tell. A write to single
rows may be missed; `optimem.refresh` is for those.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

_WORD = 8  # bytes
_APART = 256 << 10  # bytes of a weight for each word that is looked at
_FEWEST, _MOST = 2, 32  # words of one weight


class Probe:
    """The words at fixed places of `block`, bytes on the host, in the order of the places."""

    def __init__(self, block: torch.Tensor, weights: Iterable[tuple[int, int]]) -> None:
        """`weights` are the first byte and the size of each."""
        places = sorted({place for at, nbytes in weights for place in _places(at, nbytes)})
        self._gathered = bytearray(_WORD * max(len(places), 1))
        with torch.inference_mode(False):
            self.words = block.view(torch.int64)
            self._index = torch.tensor(places, dtype=torch.int64, device="cpu")
            self._now = torch.frombuffer(self._gathered, dtype=torch.int64)[: len(places)]
        self.note()

    def note(self) -> None:
        """Remember the words as they are. Some 30 ns each."""
        self._gather()
        self._before = bytes(self._gathered)

    def changed(self) -> bool:
        """Tell whether a word differs from the one noted."""
        self._gather()
        return self._gathered != self._before

    def _gather(self) -> None:
        torch.index_select(self.words, 0, self._index, out=self._now)


def _places(at: int, nbytes: int) -> list[int]:
    """Return the words to look at in a weight, spread from its first to its last."""
    first, last = at // _WORD, (at + max(nbytes, 1) - 1) // _WORD
    count = max(_FEWEST, min(nbytes // _APART, _MOST))
    return [first + (last - first) * step // (count - 1) for step in range(count)]
