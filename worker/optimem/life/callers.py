"""What callers may pass to a forward, and what they get back from one."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Set
from types import FrameType
from typing import Any

import torch

from ..data import moving
from ..errors import BadInput
from ..model.units import holds_no_numbers, storage_pointer

KEPT_VIEW = (
    "the model has kept a view of one of its weights from this forward for later ones (self.t = self.w.t()), "
    "which paging cannot follow. The model is detached now, and the view is NaN: make it anew, in every forward "
    "or before optimem is attached"
)

FORKED = (
    "this process was forked from the one that attached the model, and the card's memory does not come along; start the "
    "process with multiprocessing's spawn method, or attach the model in it and not before the fork"
)


def refuse_bad_call(inputs: Any, training: str | None) -> None:
    """Raise BadInput for inputs that inference does not take, and where module `training` is in training mode."""
    if training is not None:
        where = f" (its module {training} is)" if training else ""
        raise BadInput(f"the model is in training mode{where}; call model.eval() first: Optimem runs inference only")
    if torch._C._get_tracing_state() is not None:
        raise BadInput(
            "the model is traced by torch.jit.trace, which would note where weights lie in this one forward; call "
            "optimem.detach(model), trace it, and attach it again"
        )
    if any(map(holds_no_numbers, moving.tensors(inputs))):
        raise BadInput("an input is a meta or fake tensor and holds no numbers; call optimem.detach(model) to use such")
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in moving.tensors(inputs)):
        raise BadInput(
            "an input requires grad, but Optimem runs inference only; "
            "pass it detached, or call the model under torch.no_grad()"
        )


def own_copies(output: Any, storages: Set[int], place: torch.device) -> Any:
    """Replace what looks into one of `storages`, which may soon hold something else, by copies at `place`."""
    copies = {
        id(tensor): tensor.detach().to(place, copy=True)
        for tensor in moving.tensors(output)
        if storage_pointer(tensor) in storages
    }
    return moving.substitute(output, copies) if copies else output


def stepwise(
    generator: Generator[Any, Any, Any], resume: Callable[[FrameType], None], suspend: Callable[[], None]
) -> Generator[Any, Any, Any]:
    """Run each step of a generator that a model has returned between `resume`, which gets the frame that the step runs in,
    and `suspend`: it goes on when the forward is over."""
    sent, thrown = None, None
    while True:
        resume(sys._getframe())
        try:
            item = generator.send(sent) if thrown is None else generator.throw(thrown)
        except StopIteration as end:
            return end.value
        finally:
            suspend()
        sent, thrown = None, None
        try:
            sent = yield item
        except Exception as error:
            thrown = error
