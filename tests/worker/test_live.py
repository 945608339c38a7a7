"""Bytes of results that are alive on the CPU, counted as a device's allocator would hold them."""

from __future__ import annotations

import gc

import torch

from optimem.learning.live import LiveBytes


def test_results_count_as_blocks_once_per_storage_until_nobody_keeps_them() -> None:
    gc.collect()
    live = LiveBytes()
    small, large = torch.zeros(3), torch.zeros(200)
    live.note([small, large, large[5:], {"again": large.view(2, 100)}])
    assert live.take_peak() == 512 + 1024
    del large
    gc.collect()
    assert live.take_peak() == 512 + 1024  # what was there when the step began
    live.note(small)
    assert live.take_peak() == 512
