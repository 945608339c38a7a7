"""The errors a user meets. Each text names the thing, the number and the next step."""

from __future__ import annotations


class OptimemError(RuntimeError):
    """Base of all errors that Optimem raises on purpose."""


class BadInput(OptimemError, ValueError):
    """What the caller gave cannot work as it is: a model, a device, a budget, a file."""


class ControllerError(OptimemError):
    """The controller could not be reached or started, or it answered against the protocol."""
