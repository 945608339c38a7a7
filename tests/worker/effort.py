"""How hard property tests try: a few fixed examples, $OPTIMEM_EXAMPLES times as many; to soak, where that is above 1, others
each time."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

_TIMES = float(os.environ.get("OPTIMEM_EXAMPLES", "1"))


LESS = _TIMES < 1  # the second torch: what is tried in one of two ways takes the other one


def tries(count: int) -> int:
    """Return how often to try what is tried `count` times in the usual suite."""
    return max(1, round(count * _TIMES))


def examples(count: int) -> settings:
    """Return settings for a property test that tries `count` examples in the usual suite."""
    return settings(
        max_examples=tries(count),
        derandomize=_TIMES <= 1,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
