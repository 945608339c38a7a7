"""The parameters as callers may touch them between forwards: where they point, how often they were written to, and whether
they require grad."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..errors import BadInput
from .weights import Looks, Paged


class Parameters:
    """All pageable parameters of a model. A check costs some 0.1 us per parameter, so a call makes each check once."""

    def __init__(self, weights: Sequence[Paged]) -> None:
        parts = [part for weight in weights for part in weight.parts]
        self._names = [part.name for part in parts]
        self._tensors = [part.parameter for part in parts]
        self._targets = [part.target for part in parts]
        self._dtypes = [part.dtype for part in parts]
        # Tensors made in inference mode do not count writes.
        self._counted = [tensor for tensor in self._tensors if not tensor.is_inference()]
        self._parameters = [weight.parameter for weight in weights]
        self._frozen: list[torch.Tensor] = []
        self._places: list[int] = []
        self._writes = 0
        self.note()

    def note(self) -> None:
        """Remember where the parameters point, and how often they were written to."""
        self._places, self._writes = self._where(), self._count()

    def moved(self) -> Looks:
        """Return the tensors that point elsewhere than noted, each with what callers have put there."""
        places = self._where()
        if places == self._places:
            return []
        trios = zip(self._targets, places, self._places, strict=True)
        return [(target, target.data) for target, now, before in trios if now != before]

    def refuse_lost(self) -> None:
        """Raise BadInput if callers have changed parameters after a forward that was cut short, when some of them pointed to
        the device: to another dtype, or by writes that torch counts."""
        if self._count() != self._writes:
            raise BadInput(
                "weights were written to after a forward of the model was cut short, when some of them were on the card, "
                "and what was written there is lost; call optimem.detach(model), write again, and attach again"
            )
        for name, tensor, dtype in zip(self._names, self._tensors, self._dtypes, strict=True):
            if tensor.dtype != dtype:
                raise BadInput(
                    f"parameter {name} was given another dtype while a forward of the model was cut short; call "
                    "optimem.detach(model) and attach again"
                )

    def take_writes(self) -> bool:
        """Tell whether a parameter was written to since the last note, as far as torch counts, and note it."""
        before, self._writes = self._writes, self._count()
        return self._writes != before

    def refuse_written(self) -> None:
        """Raise BadInput if a forward has written to a parameter: nothing is copied back from the device."""
        if self._count() != self._writes:
            raise BadInput(
                "the model has written to its own weights while it ran, which paging would lose; "
                "make what changes a buffer, or call optimem.detach(model)"
            )

    def freeze(self) -> None:
        """Keep a forward that forgot no_grad from building a graph. Only for calls with grad on: torch's matmul chooses its
        way, and so the last bits, by whether a weight requires grad."""
        required = [parameter for parameter in self._parameters if parameter.requires_grad]
        self._frozen += required  # a call that finds no room for its arguments freezes twice
        for parameter in required:
            parameter.requires_grad_(False)

    def thaw(self) -> None:
        """Undo `freeze`. Idempotent."""
        for parameter in self._frozen:
            parameter.requires_grad_(True)
        self._frozen = []

    def _where(self) -> list[int]:
        return list(map(torch.Tensor.data_ptr, self._tensors))

    def _count(self) -> int:
        return sum([tensor._version for tensor in self._counted])
