"""The table of traps: what trips pagers, one row each, and which tests show that it does not trip this one.

A test names its rows by `@pytest.mark.trap(4, 11)`. `make traps`, which is `pytest -m trap`, prints the table and fails
where a row failed or has no test that passed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest

ROWS = {
    1: "a weight is used by another module than its owner, or outside of forward",
    2: "parameters on the root and on modules with children, in ParameterList and ParameterDict",
    3: "a user's pre-hook computes the weight before our hook has run",
    4: "forward ends in an exception or in Ctrl-C",
    5: "a module calls itself, is called twice, or has two names",
    6: "one weight under two names",
    7: "a weight is a view of another one's storage",
    8: "weights are also held in lists, closures and by RNNs",
    9: "buffers are written to, replaced, not persistent, or share bytes",
    10: "the output is a weight, or a view of one",
    11: "the output is a generator; modules are called on another thread",
    12: "arguments in containers; caches that grow or are written to",
    13: "every forward takes another way; mixture of experts",
    14: "a round trip through the layers defeats any cache of recent ones",
    15: "bytes of the arena are overwritten while they are read",
    16: "a weight is used before its copy has ended",
    17: "copies from pageable memory hold up the host",
    18: "the source of a copy is changed in flight",
    19: "pinned memory is scarce, and rounded up by others",
    20: "memory that the allocator keeps is free for us, and in pieces",
    21: "weights that fill the card leave no room for activations",
    22: "freed memory is free only some time later",
    23: "state_dict, load_state_dict, .to(), .half() and .cuda() on a paged model",
    24: "callers ask where the weights are, and put inputs there",
    25: "a paged model is copied, pickled or saved",
    26: "callers look at classes, attributes and names of modules",
    27: "weights with strides of their own: channels_last, transposed, with gaps",
    28: "weights of a tensor class of their own",
    29: "packed parameters, which are no tensors",
    30: "gradients are on, since nobody has switched them off",
    31: "torch.compile",
    32: "autocast keeps casts of weights",
    33: "two threads call one model",
    34: "adapters and modules come, go and change while the model is paged",
    35: "inference_mode and no_grad by turns",
    36: "training mode and dropout",
    37: "attached twice, detached twice",
    38: "weights without numbers: meta, fake, lazy, not initialised",
    39: "parts are called after the whole, and pages are shared by parts",
    40: "a module without tensors is part of several models",
    41: "methods of a model read weights of the model itself",
    42: "weights are written to where torch does not count",
    43: "torch.func, autograd and jit.trace in and around a forward; deep nesting",
    44: "parameters without dimensions; a default device",
    45: "random numbers are drawn in modules that change sides",
    46: "hooks on all modules of the process read weights",
}


@dataclass
class Row:
    """What happened to the tests of one row."""

    tests: Counter[str] = field(default_factory=Counter)  # cases per test function
    outcomes: Counter[str] = field(default_factory=Counter)

    @property
    def holds(self) -> bool:
        """True where some case passed and none failed. A skipped one, say of a budget too small, counts for nothing."""
        return self.outcomes["passed"] > 0 and self.outcomes["failed"] == 0


class Table:
    """A pytest plugin that fills the rows and prints them."""

    def __init__(self) -> None:
        self.rows = {number: Row() for number in ROWS}
        self._rows_of: dict[str, list[Row]] = {}

    def pytest_collection_modifyitems(self, items: Iterable[pytest.Item]) -> None:
        """Note which case belongs to which rows. Raises UsageError for a row that there is not."""
        for item in items:
            numbers = {number for marker in item.iter_markers("trap") for number in marker.args}
            if not numbers <= ROWS.keys():
                raise pytest.UsageError(f"{item.nodeid} names traps that are in no row: {sorted(numbers - ROWS.keys())}")
            self._rows_of[item.nodeid] = [self.rows[number] for number in sorted(numbers)]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count a case once: by its call, or by whatever else did not go well."""
        if report.when == "call" or not report.passed:
            for row in self._rows_of.get(report.nodeid, ()):
                row.outcomes[report.outcome] += 1
                row.tests[report.location[2].partition("[")[0]] += 1

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fail where a row does not hold."""
        if session.exitstatus == pytest.ExitCode.OK and not all(row.holds for row in self.rows.values()):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the table."""
        terminalreporter.section("traps")
        for number, row in self.rows.items():
            terminalreporter.write_line(f"{number:>2}  {_verdict(row):<24}  {ROWS[number]}")
            for name, cases in row.tests.items():
                terminalreporter.write_line(f"{'':>30}{name} ({cases})")
        held = sum(row.holds for row in self.rows.values())
        terminalreporter.write_line(f"{held} of {len(self.rows)} rows hold")


def _verdict(row: Row) -> str:
    if not row.tests:
        return "NO TEST"
    counted = ", ".join(
        f"{row.outcomes[outcome]} {outcome}" for outcome in ("passed", "failed", "skipped") if row.outcomes[outcome]
    )
    return counted if row.holds else counted.upper()
