"""optimem.plan: what it says of a model, and that both ways to the planner say the same."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import models
import optimem
import oracle
from optimem.forecast import respond as planner
from same import bits

ROOT = Path(__file__).resolve().parents[2]


def said(way: Callable[[str], str], request: str) -> str:
    """Return the answer, or the kind and the text of the refusal."""
    try:
        return way(request)
    except optimem.OptimemError as error:
        return f"{type(error).__name__}: {error}"


def a_case(seed: int = 1, n: int = 10) -> oracle.Case:
    return next(oracle.cases("lognormal", n, 1, seed))


# Two ways, one answer.


@pytest.mark.skipif(not shutil.which("go") or not shutil.which("cc"), reason="the extension needs Go and a C compiler")
def test_the_extension_is_there_wherever_it_can_be_built() -> None:
    assert planner.usable(), "run tools/extension and read the log that it names"


def json_values() -> st.SearchStrategy[Any]:
    leaves = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=8)
    return st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    )


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the way to every value within `value`."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in inner for place in places(item, (*path, key)))]


@st.composite
def requests(draw: st.DrawFn) -> str:
    """A request of a random list, with up to two values replaced by others or taken away."""
    family = draw(st.sampled_from(sorted(oracle.FAMILIES)))
    case = next(oracle.cases(family, draw(st.integers(3, 12)), 1, draw(st.integers(0, 1000))))
    options = {
        "mode": draw(st.sampled_from(["page", "page", "auto", "chunk"])),
        "vram": draw(st.sampled_from(["", "25%", "70%", "20MiB", "-1", "6 parsecs"])),
        "pages_as_given": draw(st.booleans()),
        "curve": draw(st.sampled_from([[], ["50%", "90%"]])),
    }
    request: Any = {"": case.request(**options)}
    for step in request[""]["manifest"]["steps"]:
        step["cpu_ns"] = 2 * step["compute_ns"]
    for _ in range(draw(st.integers(0, 2))):
        path = draw(st.sampled_from(places(request, ())[1:]))
        within = request
        for key in path[:-1]:
            within = within[key]
        if draw(st.booleans()):
            within[path[-1]] = draw(json_values())
        else:
            del within[path[-1]]
            break
    return json.dumps(request.get(""))


@settings(max_examples=150, deadline=None)
@given(requests() | st.text(max_size=20))
def test_the_extension_and_the_binary_say_the_same_byte_for_byte(request: str) -> None:
    assert said(planner.respond, request) == said(planner.beside, request)


@pytest.mark.parametrize(
    "name", ["a\0b", "a\ud800b", "\u0000", "ü 漢 \U0001f600", "\x7f\x1b[31m", "</script>", "a\u2028b", '"\\']
)
@pytest.mark.parametrize("escaped", [True, False])
def test_odd_characters_pass_both_ways_or_are_refused_by_both(name: str, escaped: bool) -> None:
    asked = a_case(n=4).request(vram="70%")
    asked["manifest"]["units"][1]["path"] = name
    request = json.dumps(asked, ensure_ascii=escaped)
    answer = said(planner.respond, request)
    assert answer == said(planner.beside, request)
    assert answer.startswith("BadInput: ") or json.loads(answer)["manifest"]["units"][1]["path"] == name


def test_ten_thousand_units_pass_both_ways() -> None:
    case = oracle.chain([4 << 20] * 10_000, [300_000] * 10_000, 20 << 30)
    request = json.dumps(case.request())
    answer = planner.inside(request)
    assert len(answer) > 1_000_000
    assert len(json.loads(answer)["pages"]) == 10_000
    assert answer == planner.beside(request)


def test_many_threads_ask_at_once() -> None:
    asked = [json.dumps(a_case(seed, 12).request(vram="60%", curve=["50%", "90%"])) for seed in range(6)]
    alone = [planner.inside(request) for request in asked]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(planner.respond, asked * 2)) == alone * 2


def test_two_thousand_questions_leave_no_memory_behind() -> None:
    def kilobytes() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024

    request = json.dumps(a_case(n=3).request(vram="70%"))
    for _ in range(100):  # until Go's heap has the size that it keeps
        planner.inside(request)

    def grown() -> int:
        before = kilobytes()
        for _ in range(1_000):
            planner.inside(request)
        return kilobytes() - before

    # half of what the answers take; other threads may take memory once
    assert min(grown(), grown()) < 1_000 * len(planner.inside(request)) // 1024 // 2


def test_where_the_extension_does_not_load_the_binary_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    request = json.dumps(a_case().request())
    answer = planner.inside(request)
    monkeypatch.setattr(planner, "_extension", lambda: (None, 0))
    assert not planner.usable()
    assert planner.respond(request) == answer


def test_without_extension_and_binary_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planner, "_extension", lambda: (None, 0))
    monkeypatch.setenv("OPTIMEM_CTL", "/nowhere/optimemctl")
    with pytest.raises(optimem.ControllerError, match="set OPTIMEM_CTL"):
        planner.respond("{}")


def run_alone(script: str, *arguments: str) -> None:
    """Run Python code in a process of its own, with `ask`, `request` and the request's `answer`."""
    paths = os.pathsep.join([str(ROOT / "worker"), str(ROOT / "tests" / "worker")])
    child = [sys.executable, "-c", ALONE + script, *arguments]
    subprocess.run(child, check=True, timeout=60, env={**os.environ, "PYTHONPATH": paths})


ALONE = """
import json, os, sys
from optimem.forecast import respond as planner
import oracle
request = json.dumps(next(oracle.cases("lognormal", 6, 1, 1)).request())
answer = planner.respond(request)
def ask(_=None):
    return planner.usable(), planner.respond(request) == answer
"""

FORK = """
from multiprocessing import get_context
from torch.utils.data import DataLoader
with get_context("fork").Pool(2) as pool:
    assert pool.map(ask, range(2)) == [(False, True)] * 2
class Asked(list):
    def __getitem__(self, index):
        return ask()
loader = DataLoader(Asked(range(2)), 1, num_workers=2, multiprocessing_context="fork", collate_fn=list)
assert list(loader) == [[(False, True)]] * 2
assert ask() == (True, True)
"""


def test_forked_children_get_the_same_answer_and_do_not_hang() -> None:
    run_alone(FORK)


TWO_RUNTIMES = """
import importlib.util
from concurrent.futures import ThreadPoolExecutor
spec = importlib.util.spec_from_file_location("_planner", sys.argv[1])
other = importlib.util.module_from_spec(spec)
with ThreadPoolExecutor(4) as pool:
    assert all(pool.map(lambda _: other.bindings_Plan(request) == planner.inside(request) == answer, range(8)))
"""


def test_a_second_go_runtime_in_the_process_does_no_harm(tmp_path: Path) -> None:
    module, _ = planner._extension()
    run_alone(TWO_RUNTIMES, shutil.copy(module.__file__, tmp_path))


CTRL_C = """
import signal, threading, time
threading.Timer(0.2, os.kill, [os.getpid(), signal.SIGINT]).start()
try:
    time.sleep(30)
except KeyboardInterrupt:
    assert ask() == (True, True)
else:
    raise AssertionError("Ctrl-C did not arrive")
"""


def test_ctrl_c_still_arrives_beside_the_extension() -> None:
    run_alone(CTRL_C)


def test_the_extension_leaves_floating_point_alone() -> None:
    planner.inside(json.dumps(a_case().request()))
    assert (torch.tensor([1e-310], dtype=torch.float64) * 0.5).item() == 5e-311  # not flushed to zero


# What is said of a model.


def test_an_attached_model_is_planned_from_its_own_times_and_goes_on_undisturbed(card: torch.device) -> None:
    plain, inputs = models.Stack(8).eval(), models.rows()
    expected = bits(plain(inputs))
    model = optimem.page(plain, card, vram="40%")
    with torch.no_grad():
        for _ in range(6):
            model(inputs)
    before = optimem.status(model)
    assert before is not None
    same, more = optimem.plan(model, "40%"), optimem.plan(model, "80%")
    assert optimem.status(model) == before
    assert not same.notes
    assert same.budget_bytes == before.budget_bytes
    assert (same.mode, same.estimated) == ("page", False)
    assert 0 < more.bound_ns <= more.period_ns <= same.period_ns
    with torch.no_grad():
        assert bits(model(inputs)) == expected
    optimem.detach(model)


@pytest.mark.parametrize("mode", ["page", "chunk"])
def test_a_model_that_is_not_attached_is_called_once_and_left_as_it_was_found(card: torch.device, mode: str) -> None:
    model, inputs = models.Buffers().eval(), models.rows()
    before = bits(list(model.state_dict().values()))
    identities = [id(tensor) for tensor in (*model.parameters(), *model.buffers())]
    told = optimem.plan(model, "60%", mode=mode, inputs=inputs, device=card)
    assert told.period_ns > 0
    assert not told.estimated
    assert {path for page in told.pages for path in page.units} == {f"layers.{i}" for i in range(4)}
    assert optimem.status(model) is None
    assert bits(list(model.state_dict().values())) == before
    assert [id(tensor) for tensor in (*model.parameters(), *model.buffers())] == identities
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())


class LeavesTraces(models.Stack):
    """Draws random numbers, and keeps things between calls where it finds room."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("none_yet", None)
        self.calls, self.mask = 0, None

    def forward(self, x: torch.Tensor) -> Any:
        self.calls += 1
        self.mask = torch.rand_like(x)
        self.none_yet = self.late = self.mask + torch.rand(x.shape).to(x.device)
        self.register_buffer("another", self.mask)
        return super().forward(x * self.mask)


def test_random_numbers_gradients_and_attributes_are_as_they_were(card: torch.device) -> None:
    model = LeavesTraces().eval()
    model.layers[0].requires_grad_(False)
    model.layers[1].weight.grad = torch.ones(models.WIDTH, models.WIDTH)
    gradient, attributes = model.layers[1].weight.grad, dict(vars(model))
    draws = torch.get_rng_state(), torch.get_device_module(card).get_rng_state()
    optimem.plan(model, "60%", inputs=models.rows(), device=card)
    assert vars(model) == attributes
    assert dict(model.named_buffers()) == {}
    assert model.layers[1].weight.grad is gradient
    assert bits(gradient) == bits(torch.ones(models.WIDTH, models.WIDTH))
    assert [parameter.requires_grad for parameter in model.parameters()] == [False] * 2 + [True] * 6
    assert torch.equal(torch.get_rng_state(), draws[0])
    assert torch.equal(torch.get_device_module(card).get_rng_state(), draws[1])
    assert model.layers[1].weight.device.type == "cpu"


@pytest.mark.parametrize("inputs", [(models.rows(),), [models.rows()], {"x": models.rows()}, models.rows()])
def test_inputs_may_be_a_tuple_a_dict_or_one_tensor(card: torch.device, inputs: Any) -> None:
    assert optimem.plan(models.Stack().eval(), "50%", inputs=inputs, device=card).period_ns > 0


def test_without_a_forward_only_the_link_takes_time_and_the_notes_say_so() -> None:
    told = optimem.plan(models.Stack(8).eval(), "50%")
    assert "no forward was recorded" in told.notes[0]
    assert told.bottleneck == "link"
    assert told.resident_bytes + told.arena_bytes <= told.budget_bytes
    assert json.loads(told.json)["period_ns"] == told.period_ns


@pytest.mark.parametrize("shape", [lambda: models.Stack(8), models.Tied])
def test_a_model_that_was_never_loaded_is_planned_by_its_sizes(shape: Callable[[], nn.Module]) -> None:
    with torch.device("meta"):
        nowhere = shape().eval()
    assert optimem.plan(nowhere, "70%") == optimem.plan(shape().eval(), "70%")
    with pytest.raises(optimem.BadInput, match="on the meta device and holds no numbers; load the weights first"):
        optimem.plan(nowhere, "70%", inputs=models.rows(), device="sim")


def test_an_attached_model_that_has_not_run_yet_is_planned_as_registered(card: torch.device) -> None:
    model = optimem.page(models.Stack().eval(), card, vram="50%")
    assert "no forward was recorded" in optimem.plan(model, "60%").notes[0]
    optimem.detach(model)


def test_a_plan_reads_as_a_sentence() -> None:
    told = optimem.plan(models.Stack(8).eval(), "50%")
    assert str(told) == (
        f"{told.period_ns / 1e3:.1f} us per forward, {100 * told.gap:.1f} % above what this link and "
        f"{told.budget_bytes / 1024:.1f} KiB allow; {told.resident_bytes / 1024:.1f} KiB of "
        f"{told.weights_bytes / 1024:.1f} KiB resident, an arena of {told.arena_bytes / 1024:.1f} KiB (estimated)"
    )
    assert len(repr(told)) < 1000
    assert str(optimem.plan(models.Stack().eval(), "50%", mode="chunk")).startswith("nobody knows how long a forward takes")


def test_what_another_budget_gives_is_a_curve() -> None:
    told = optimem.plan(models.Stack(8).eval(), "50%", curve=["1%", "60%", "100%"])
    assert [point.missing_bytes > 0 for point in told.curve] == [True, False, False]
    assert told.curve[1].period_ns > told.curve[2].period_ns


class Raises(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("the model's own")


def test_what_the_model_raises_passes_and_nothing_is_left(card: torch.device) -> None:
    model = Raises().eval()
    with pytest.raises(RuntimeError, match="the model's own"):
        optimem.plan(model, inputs=torch.zeros(1, 8), device=card)
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"vram": "6 parsecs"}, '"6 parsecs" is neither a size nor a share: give bytes'),
        ({"vram": "0"}, "leaves nothing"),
        ({"vram": -5}, '"-5" is neither'),
        ({"vram": "50%", "mode": "hover"}, '"hover" is no mode: give page'),
        ({"vram": 100}, r"layers\.0 takes 4\.\d KiB, so .* \(\d+ bytes\) are missing"),
        ({"vram": "50%", "max_layer_size": -7}, "max_layer_size is -7"),
        ({"vram": "50%", "link": "fast"}, "fast"),
        ({"vram": "50%", "device": "toaster"}, "toaster"),
        ({"vram": "50%", "curve": ["50%", "much"]}, r'curve\[1\]: "much" is neither'),
        ({"vram": "50%", "inputs": (1,), "device": "cpu"}, "nothing to plan"),
    ],
)
def test_what_cannot_work_is_refused_in_words(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(optimem.BadInput, match=words):
        optimem.plan(models.Stack().eval(), **wrong)


def test_a_model_in_training_is_refused() -> None:
    with pytest.raises(optimem.BadInput, match=r"call model\.eval"):
        optimem.plan(models.Dropouts(), "50%")


def test_inputs_and_another_device_are_refused_where_the_model_is_attached(card: torch.device) -> None:
    model = optimem.page(models.Stack().eval(), card, vram="50%")
    with pytest.raises(optimem.BadInput, match="planned from its own forwards"):
        optimem.plan(model, "60%", inputs=models.rows())
    with pytest.raises(optimem.BadInput, match="its times are of that device"):
        optimem.plan(model, "60%", device="cpu")
    optimem.detach(model)
