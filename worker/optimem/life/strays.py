"""Reads that no plan foresaw: what torch says of them, and what we add so that its words can be understood.

A weight that is not held lies in RAM, so a module that was never seen to read it meets torch's refusal of mixed devices
instead of wrong bytes. The next forward is recorded again and learns the new reader.
"""

from __future__ import annotations

_WORDS = ("same device", "device type", "should be the same")  # torch's, of operations, of copies, and of convolutions

_ADVICE = (
    "optimem: a weight that is paged out was read by a module that had not read it in any forward before. Nothing wrong was "
    "computed. The next forward learns it: call the model again, or attach with retry=True to have that done for you, or "
    "with verify=True to have such weights brought at once. Were the inputs on two devices from the start, move them to one"
)


def explain(error: BaseException | None) -> bool:
    """Tell whether `error` is torch's refusal of mixed devices, and say in its text what to do about it."""
    said = str(error)
    if not isinstance(error, RuntimeError) or not any(words in said for words in _WORDS):
        return False
    if _ADVICE not in said:
        error.args = (f"{said}\n{_ADVICE}",)
    return True
