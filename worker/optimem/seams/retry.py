"""One more try, if the caller allows it, for a forward that ran out of memory or missed a weight."""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable
from typing import Any

from torch import nn

Arguments = tuple[Any, Any]  # positional, by keyword


class Retry:
    """Runs a root's forward once more if it failed and `recover` returns arguments to run it with.

    A hook cannot do that: torch raises the error anyway. So `forward` is an attribute of the model until `untie`.
    """

    def __init__(self, model: nn.Module, recover: Callable[[RuntimeError, Any, Any], Arguments | None]) -> None:
        self._model = model
        self._own = vars(model).get("forward")
        self._forward = model.forward
        self._recover = recover
        functools.update_wrapper(self, model.forward)  # callers look at its signature

    def tie(self) -> None:
        """Be the model's forward."""
        self._model.forward = self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return self._forward(*args, **kwargs)
        except RuntimeError as error:  # torch.OutOfMemoryError is one
            traceback.clear_frames(error.__traceback__)  # they hold the forward's device tensors
            again = self._recover(error, args, kwargs)
            if again is None:
                raise
        args, kwargs = again
        return self._forward(*args, **kwargs)

    def untie(self) -> None:
        """Give the model its own forward back. Idempotent."""
        if vars(self._model).get("forward") is self:
            if self._own is None:
                del self._model.forward
            else:
                self._model.forward = self._own
