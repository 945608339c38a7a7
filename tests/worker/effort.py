"""How hard property tests try: a few fixed examples; to soak, $OPTIMEM_EXAMPLES times as many and others each time."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

_TIMES = int(os.environ.get("OPTIMEM_EXAMPLES", "0"))


def examples(count: int) -> settings:
    """Return settings for a property test that tries `count` examples in the usual suite."""
    return settings(
        max_examples=count * max(1, _TIMES),
        derandomize=not _TIMES,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
