"""4-bit weights of bitsandbytes keep their format while a model is attached.

In the first forward on a CPU with AVX512 for bfloat16, bitsandbytes packs such a weight anew, in place, for a kernel of that
CPU. No other device can read the format, and the weight would leave the bytes that are paged.
"""

from __future__ import annotations

from torch import nn

NOTE = "4-bit weights of bitsandbytes are not packed anew for the CPU: equal to the plain model before such a packing"

_SWITCH = "support_avx512bf16_for_cpu"  # an attribute of bitsandbytes' layers


class Formats:
    """The layers of one model that would pack their weights anew."""

    def __init__(self, model: nn.Module) -> None:
        self._layers = [(module, vars(module)[_SWITCH]) for module in model.modules() if vars(module).get(_SWITCH)]

    @property
    def needed(self) -> bool:
        """True if there are such layers."""
        return bool(self._layers)

    def keep(self) -> None:
        """Keep all formats as they are. Idempotent."""
        for module, _ in self._layers:
            vars(module)[_SWITCH] = False

    def end(self) -> None:
        """Undo `keep`. Idempotent."""
        for module, before in self._layers:
            vars(module)[_SWITCH] = before
