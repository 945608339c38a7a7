"""What callers do to a model while it is paged: load, move, copy, save, change and look at it."""

from __future__ import annotations

import copy
import gc
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

import models
import optimem
from same import bits, found, values

MODES = pytest.mark.parametrize("attach", [optimem.page, optimem.chunk], ids=["page", "chunk"])
Change = Callable[[nn.Module], object]


def forwards(model: nn.Module, count: int = 4) -> list[Any]:
    """Return the bits of so many forwards."""
    with torch.no_grad():
        return [bits(model(models.rows())) for _ in range(count)]


def paged(model: nn.Module, attach: Any = optimem.page, vram: str = "60%") -> Any:
    """Return the same model, attached and under its plan."""
    attached = attach(model.eval(), "sim", vram=vram)
    forwards(attached)
    return attached


def state(model: nn.Module) -> optimem.Status:
    """Return the status of an attached model."""
    found = optimem.status(model)
    assert found is not None
    return found


# Loading and moving.


@pytest.mark.trap(23)
def test_a_paged_models_state_dict_is_that_of_the_plain_one(card: torch.device) -> None:
    plain = models.Views().eval()
    model = paged(copy.deepcopy(plain))
    ours, theirs = model.state_dict(), plain.state_dict()
    assert list(ours) == list(theirs)
    assert {name: (t.dtype, t.device, t.stride()) for name, t in ours.items()} == {
        name: (t.dtype, t.device, t.stride()) for name, t in theirs.items()
    }
    assert bits(ours) == bits(theirs)


@pytest.mark.trap(23)
@pytest.mark.parametrize("assign", [False, True])
@MODES
def test_loading_a_state_dict_while_paged_takes_effect(
    card: torch.device, slow_cpu: None, attach: Any, assign: bool
) -> None:
    model, other = paged(models.Stack(), attach), models.Stack().eval()
    model.load_state_dict(copy.deepcopy(other.state_dict()), assign=assign)
    assert forwards(model) == forwards(other)
    assert bits(model.state_dict()) == bits(other.state_dict())
    optimem.detach(model)
    assert forwards(model) == forwards(other)


@pytest.mark.trap(23)
def test_writing_to_a_weight_takes_effect(card: torch.device) -> None:
    plain = models.Tied().eval()
    model = optimem.page(copy.deepcopy(plain), card, vram="60%")
    tokens = torch.arange(6).view(2, 3)
    with torch.no_grad():
        for step in range(5):
            torch.accelerator.synchronize()  # copies ahead would be made again, but the race detector cannot know that
            for each in (plain, model):
                each.head.weight[step] += 1
            assert bits(model(tokens)) == bits(plain(tokens))


@pytest.mark.trap(23)
@MODES
@pytest.mark.parametrize(
    "change", [nn.Module.half, nn.Module.double, lambda m: m.to("simgpu")], ids=["half", "double", "to"]
)
def test_a_model_that_is_moved_while_paged_is_attached_again(card: torch.device, attach: Any, change: Change) -> None:
    """As a pipeline does that decodes in another type than it has the weights in."""
    plain = models.Stack().eval()
    model = paged(copy.deepcopy(plain), attach)
    before = state(model).forwards
    for _ in range(2):
        change(model)
        change(plain)
        plain.to("cpu")
        x = models.rows().to(plain.layers[0].weight.dtype)
        with torch.no_grad():
            for _ in range(4):
                assert bits(model(x)) == bits(plain(x))
    assert state(model).forwards == before + 8
    assert values(optimem.detach(model)) == values(plain)


@pytest.mark.trap(23)
def test_detaching_leaves_what_callers_have_put_in_the_place_of_a_weight(card: torch.device) -> None:
    plain = models.Stack().eval()
    model = paged(copy.deepcopy(plain))
    new = models.rows(32, 32)
    for each in (plain, model):
        each.layers[3].weight.data = new.clone()
    optimem.detach(model)
    assert forwards(model) == forwards(plain)


# Writes that torch does not count.

Writer = Callable[[torch.Tensor], Any]
WRITERS: dict[str, Writer] = {
    "through data": lambda weight: weight.data.mul_(-1.5),
    "through data, sum": lambda weight: weight.data.add_(0.25),
    "through numpy": lambda weight: weight.detach().numpy().__imul__(2),
    "through a view": lambda weight: weight.data.view(-1).copy_(weight.data.view(-1) * 3),
}


@pytest.mark.trap(42)
@MODES
@pytest.mark.parametrize("made_in", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("vram", ["50%", "200%"])
@pytest.mark.parametrize("writer", WRITERS)
def test_writes_that_nobody_counts_are_seen(
    card: torch.device, writer: str, vram: str, made_in: Callable[[], Any], attach: Any
) -> None:
    with made_in():
        plain = models.Stack().eval()
        model = paged(copy.deepcopy(plain), attach, vram)
        for round_ in range(2):
            torch.accelerator.synchronize()
            for each in (plain, model):
                for parameter in list(each.parameters())[round_:]:
                    WRITERS[writer](parameter)
            assert bits(model(models.rows())) == bits(plain(models.rows()))


@pytest.mark.trap(42)
@pytest.mark.parametrize("vram", ["50%", "200%"])
def test_what_was_made_in_inference_mode_can_be_loaded_anew_and_written_to(card: torch.device, vram: str) -> None:
    with torch.inference_mode():
        plain = models.Stack().eval()
        model = paged(copy.deepcopy(plain), vram=vram)
        new = {name: tensor * 2 for name, tensor in plain.state_dict().items()}
        for change in (lambda each: each.load_state_dict(new), lambda each: [p.mul_(2) for p in each.parameters()]):
            torch.accelerator.synchronize()
            for each in (plain, model):
                change(each)
            assert forwards(model) == forwards(plain)


@pytest.mark.trap(42)
@MODES
def test_one_element_that_was_written_unseen_is_new_after_refresh(card: torch.device, attach: Any) -> None:
    plain = models.Stack().eval()
    model = paged(copy.deepcopy(plain), attach, vram="200%")
    torch.accelerator.synchronize()
    for each in (plain, model):
        each.layers[2].weight.data[3, 5] = 100.0
    assert optimem.refresh(model) is model
    assert forwards(model) == forwards(plain)
    assert optimem.refresh(plain) is plain  # which is not attached


@pytest.mark.trap(23)
@MODES
def test_a_file_that_is_saved_while_paged_loads_anywhere(card: torch.device, attach: Any) -> None:
    plain = nn.Sequential(nn.Linear(32, 32), nn.BatchNorm1d(32), models.OwnTensorClass()).eval()
    model = paged(copy.deepcopy(plain), attach)
    assert {tensor.device.type for tensor in model.state_dict().values()} == {"cpu"}
    assert bits(model.state_dict()) == bits(plain.state_dict())
    assert bits(model[1].state_dict()) == bits(plain[1].state_dict())
    live = model.state_dict(keep_vars=True)
    assert live["1.running_mean"] is model[1].running_mean


@pytest.mark.trap(23)
@pytest.mark.skipif(torch.cuda.is_available(), reason="torch finds a card to move to")
def test_cuda_where_there_is_none_changes_nothing(card: torch.device) -> None:
    plain = models.Stack().eval()
    model = paged(copy.deepcopy(plain))
    with pytest.raises((AssertionError, RuntimeError), match=r"(?i)cuda|nvidia"):
        model.cuda()
    assert forwards(model.to("cpu").float()) == forwards(plain)


# Copying and saving.


@pytest.mark.trap(25)
@pytest.mark.parametrize(
    "copied",
    [copy.deepcopy, pickle.dumps, lambda model: torch.save(model, io.BytesIO())],
    ids=["deepcopy", "pickle", "save"],
)
def test_a_paged_model_refuses_to_be_copied(card: torch.device, copied: Change) -> None:
    plain = models.Stack().eval()
    model = paged(copy.deepcopy(plain))
    for part in (model, model.layers[0]):
        with pytest.raises(optimem.OptimemError, match=r"optimem\.detach"):
            copied(part)
    assert forwards(model) == forwards(plain)
    copied(optimem.detach(model))


@pytest.mark.trap(25)
def test_a_paged_models_weights_are_saved_and_loaded(card: torch.device) -> None:
    plain = models.Stack().eval()
    file = io.BytesIO()
    torch.save(paged(copy.deepcopy(plain)).state_dict(), file)
    file.seek(0)
    fresh = models.Stack().eval()
    fresh.load_state_dict(torch.load(file))
    assert forwards(fresh) == forwards(plain)


@pytest.mark.trap(25)
def test_a_shallow_copy_of_a_paged_model_runs_its_own_weights_which_are_the_same(card: torch.device) -> None:
    plain = models.Stack().eval()
    model = paged(copy.deepcopy(plain))
    assert forwards(copy.copy(model)) == forwards(plain)
    assert forwards(model) == forwards(plain)


# Looking.


@pytest.mark.trap(26)
def test_the_hierarchy_never_changes(card: torch.device) -> None:
    seen: list[Any] = []

    class Looks(models.Stack):
        def forward(self, x: torch.Tensor) -> Any:
            seen.append(looked_at(self))
            return super().forward(x)

    def looked_at(model: nn.Module) -> Any:
        named = [*model.named_modules(), *model.named_parameters(), *model.named_buffers()]
        return [(name, id(thing), type(thing)) for name, thing in named], vars(model).keys(), model.layers[0].in_features

    model = Looks().eval()
    before = looked_at(model)
    paged(model)
    assert isinstance(model, Looks)
    assert len(seen) == 4
    assert all(look == before for look in [*seen, looked_at(model)])


@pytest.mark.trap(24)
def test_inputs_made_where_the_weights_are_work(card: torch.device) -> None:
    plain = models.Stack().eval()
    model = paged(copy.deepcopy(plain))
    with torch.no_grad():
        for place in (next(model.parameters()).device, card):
            assert bits(model(models.rows().to(place))) == bits(plain(models.rows()))


# Changing.


def with_lora(model: nn.Module) -> None:
    """Wrap two layers in adapters, the same each time."""
    torch.manual_seed(7)
    for index in (1, 2):
        model.layers[index] = models.Lora(model.layers[index]).eval()


def without_lora(model: nn.Module) -> None:
    """Unwrap them."""
    for index in (1, 2):
        model.layers[index] = model.layers[index].base


def with_more(model: nn.Module) -> None:
    """Add a layer at the end and one inside another."""
    torch.manual_seed(8)
    model.layers.append(nn.Linear(models.WIDTH, models.WIDTH).eval())
    model.layers[0].extra = nn.Linear(3, 3).eval()


def with_less(model: nn.Module) -> None:
    """Remove a layer."""
    del model.layers[2]


def with_another_weight(model: nn.Module) -> None:
    """Replace a parameter, and tie another one to it."""
    torch.manual_seed(9)
    model.layers[0].weight = nn.Parameter(torch.randn(models.WIDTH, models.WIDTH) / 8)
    model.layers[3].weight = model.layers[0].weight


def with_a_parameter(model: nn.Module) -> None:
    """Register a parameter and a parametrisation that computes a weight from others."""
    model.layers[1].register_parameter("unused", nn.Parameter(torch.ones(3)))
    torch.nn.utils.parametrizations.weight_norm(model.layers[0]).eval()


CHANGES = (with_lora, with_more, with_less, with_another_weight, with_a_parameter)


@pytest.mark.trap(34)
@pytest.mark.parametrize("vram", ["60%", "120%"])
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@MODES
def test_a_change_is_noticed_at_the_next_forward(
    card: torch.device, slow_cpu: None, attach: Any, change: Change, vram: str
) -> None:
    plain = models.Stack().eval()
    model = paged(copy.deepcopy(plain), attach, vram)
    for each in (plain, model):
        change(each)
    before = {name: held for name, held in found(plain).items() if "keys" in name}
    assert forwards(model) == forwards(plain)
    assert state(model).state == "steady"
    assert state(model).weights_bytes == sum(p.numel() * 4 for p in plain.parameters())
    assert state(model).misses == 0
    optimem.detach(model)
    assert {name: held for name, held in found(model).items() if "keys" in name} == before
    assert values(model) == values(plain)
    assert forwards(model) == forwards(plain)


@pytest.mark.trap(34)
def test_adapters_come_and_go(card: torch.device) -> None:
    plain = models.Stack().eval()
    model = paged(copy.deepcopy(plain))
    for change in (with_lora, without_lora, with_lora, with_less):
        for each in (plain, model):
            change(each)
        assert forwards(model) == forwards(plain)
    optimem.detach(model)
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())


@pytest.mark.trap(34)
@MODES
def test_a_model_with_buffers_may_change_too(card: torch.device, attach: Any) -> None:
    plain = nn.Sequential(nn.Linear(32, 32), nn.BatchNorm1d(32), nn.Linear(32, 32)).eval()
    model = paged(copy.deepcopy(plain), attach, "100%")
    for each in (plain, model):
        torch.manual_seed(3)
        each.append(nn.Sequential(nn.Linear(32, 32), nn.BatchNorm1d(32)).eval())
    assert forwards(model) == forwards(plain)
    model.append(nn.BatchNorm1d(32))
    for _ in range(2):
        with pytest.raises(optimem.BadInput, match=r"3 is|4 is"):
            forwards(model)
    del model[-1]
    assert forwards(model) == forwards(plain)
    optimem.detach(model)
    assert forwards(model) == forwards(plain)


@pytest.mark.trap(34)
def test_what_was_removed_is_left_as_found(card: torch.device) -> None:
    model = models.Stack().eval()
    layer = model.layers[2]
    before, expected = found(layer), bits(list(layer.parameters()))
    paged(model)
    del model.layers[2]
    forwards(model)
    assert found(layer) == before
    assert bits(list(layer.parameters())) == expected
    assert layer.weight.untyped_storage().nbytes() == layer.weight.numel() * 4  # and no longer a part of the slab


@pytest.mark.trap(34)
def test_a_change_that_cannot_be_paged_is_refused_and_can_be_undone(card: torch.device) -> None:
    plain = models.Stack().eval()
    model = paged(copy.deepcopy(plain))
    with_lora(model)
    model.layers.append(nn.Dropout())
    for _ in range(2):
        with pytest.raises(optimem.BadInput, match=r"layers\.4 is.*model\.eval\(\)"):
            model(models.rows())
    del model.layers[4]
    without_lora(model)
    assert forwards(model) == forwards(plain)


@pytest.mark.trap(34)
def test_a_change_for_which_the_budget_is_too_small_detaches_and_says_so(card: torch.device) -> None:
    plain = models.Stack().eval()
    model = paged(copy.deepcopy(plain), vram="16KiB")
    for each in (plain, model):
        torch.manual_seed(3)
        each.layers.append(nn.Sequential(nn.Linear(32, 400), nn.Linear(400, 32)).eval())
    with pytest.raises(optimem.BadInput, match=r"has changed .*detached now: .*missing"):
        model(models.rows())
    assert optimem.status(model) is None
    assert forwards(model) == forwards(plain)


# Training mode.


@pytest.mark.trap(36)
def test_training_mode_is_refused_wherever_it_is_and_never_changed(card: torch.device) -> None:
    plain = models.Dropouts().eval()
    model = copy.deepcopy(plain)
    model.layers[1].train()
    with pytest.raises(optimem.BadInput, match=r"layers\.1 is.*model\.eval\(\)"):
        optimem.page(model, card)
    assert [module.training for module in model.layers] == [False, True, False, False, False]
    paged(model)
    for part, words in ((model, ""), (model.layers[1], r" \(its module layers\.1 is\)")):
        part.training = True
        with pytest.raises(optimem.BadInput, match=rf"in training mode{words};.*model\.eval\(\)"):
            model(models.rows())
        assert part.training
        part.training = False
    assert forwards(model) == forwards(plain)


class Normed(nn.BatchNorm1d):
    """Looks at the flag in a method of its base class."""


@pytest.mark.trap(36)
@pytest.mark.parametrize(
    ("part", "matters"),
    [
        (nn.Sequential(nn.Linear(32, 8), nn.Identity(), nn.Linear(8, 32)), False),
        (models.Lora(nn.Linear(32, 32)), False),
        (nn.Dropout(0.0), False),
        (nn.Dropout(0.1), True),
        (Normed(32), True),
        (nn.RReLU(), True),
    ],
)
def test_the_flag_is_refused_only_where_it_may_change_a_result(card: torch.device, part: nn.Module, matters: bool) -> None:
    assert part.training
    plain = models.Stack().eval()
    model = paged(copy.deepcopy(plain))
    plain.layers[2] = part
    model.layers[2] = copy.deepcopy(part)
    if matters:
        with pytest.raises(optimem.BadInput, match=r"layers\.2.*model\.eval\(\)"):
            forwards(model)
    else:
        assert forwards(model) == forwards(plain)


# Twice.


@pytest.mark.trap(37)
def test_attaching_and_detaching_twice_changes_nothing(card: torch.device) -> None:
    model = models.Stack().eval()
    before = found(model)
    assert optimem.page(optimem.page(model, card, vram="60%"), card, vram="60%") is model
    hooks = [len(module._forward_pre_hooks) for module in model.modules()]
    assert set(hooks) == {1}
    forwards(model)
    optimem.detach(optimem.detach(model))
    assert found(model) == before
    assert optimem.status(model) is None


@pytest.mark.trap(37)
def test_attaching_with_another_wish_begins_anew(card: torch.device) -> None:
    plain = models.Stack().eval()
    model = paged(copy.deepcopy(plain))
    for attach, vram in ((optimem.page, "120%"), (optimem.chunk, "60%"), (optimem.page, "60%")):
        attach(model, card, vram=vram)
        assert state(model).mode == attach.__name__
        assert forwards(model) == forwards(plain)


@pytest.mark.trap(37)
def test_a_wish_that_is_refused_leaves_the_former_one_in_force(card: torch.device) -> None:
    plain = models.Stack().eval()
    model = paged(copy.deepcopy(plain))
    before = state(model).budget_bytes
    with pytest.raises(optimem.BadInput, match="too small"):
        optimem.page(model, card, vram=1000)
    assert forwards(model) == forwards(plain)
    assert state(model).budget_bytes == before


# What cannot be.


def in_fake_mode(make: Callable[[], nn.Module]) -> nn.Module:
    """Return a model whose tensors have no numbers."""
    with FakeTensorMode():
        return make()


class UnmadeBuffer(nn.Module):
    """Has a buffer whose shape is not known yet."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.register_buffer("later", nn.parameter.UninitializedBuffer())


class TestBadInput:
    """Each is refused before anything is touched."""

    @pytest.mark.trap(38)
    @pytest.mark.parametrize(
        ("make", "match"),
        [
            (lambda: models.Dropouts(), "training mode"),
            (lambda: models.Stack().to("meta"), r"layers\.0\.weight is on the meta device"),
            (lambda: models.Buffers().to("meta"), r"on the meta device"),
            (lambda: nn.BatchNorm1d(3, affine=False).to("meta"), r"buffer running_mean is on the meta device"),
            (lambda: models.Stack().to("simgpu"), "must be on the CPU"),
            (lambda: nn.Sequential(nn.Linear(3, 3), nn.LazyLinear(3)), r"1\.weight is not initialised"),
            (
                lambda: nn.Sequential(torch.jit.script(nn.Linear(3, 3).eval())).eval(),
                "module 0 was made by torch.jit.script",
            ),
            (lambda: UnmadeBuffer(), "buffer later is not initialised"),
            (lambda: in_fake_mode(models.Stack), r"layers\.0\.weight is a fake tensor"),
            (lambda: in_fake_mode(lambda: nn.BatchNorm1d(3, affine=False)), r"buffer running_mean is a fake tensor"),
        ],
    )
    def test_models(self, card: torch.device, make: Callable[[], nn.Module], match: str) -> None:
        model = make() if match == "training mode" else make().eval()
        before = found(model)
        with pytest.raises(optimem.BadInput, match=match):
            optimem.page(model, card)
        assert found(model) == before

    @pytest.mark.trap(38)
    @pytest.mark.parametrize("make", [lambda: models.rows().to("meta"), lambda: in_fake_mode(lambda: models.rows())])
    def test_inputs_without_numbers(self, card: torch.device, make: Callable[[], torch.Tensor]) -> None:
        plain = models.Stack().eval()
        model = paged(copy.deepcopy(plain))
        with pytest.raises(optimem.BadInput, match="holds no numbers"):
            model(make())
        assert forwards(model) == forwards(plain)

    def test_a_budget_below_the_largest_page_names_it_and_what_is_missing(self, card: torch.device) -> None:
        model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 1000)).eval()
        with pytest.raises(optimem.BadInput, match=r"\b1\b.*missing"):
            optimem.page(model, card, vram="1KiB")
        assert not model._forward_hooks

    @pytest.mark.parametrize("vram", ["-1", "lots", "0%", "6 cows"])
    def test_sizes_that_are_none(self, card: torch.device, vram: str) -> None:
        with pytest.raises(optimem.BadInput, match=vram.split(maxsplit=1)[0]):
            optimem.page(models.Stack().eval(), card, vram=vram)

    @pytest.mark.parametrize("device", ["cuda", "nosuch", "cuda:99", "meta"])
    def test_devices_that_are_not_there(self, device: str) -> None:
        with pytest.raises(optimem.BadInput, match=device.split(":", maxsplit=1)[0]):
            optimem.page(models.Stack().eval(), device)

    def test_on_the_cpu_there_is_nothing_to_do(self) -> None:
        model = models.Stack().eval()
        assert optimem.page(model, "cpu") is model
        assert not model._forward_hooks


def test_what_fails_while_attaching_leaves_nothing_behind(card: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    model = models.Buffers().eval()
    before, held = found(model), values(model)
    gc.collect()
    taken = torch.accelerator.memory_allocated()

    def refuse(*arguments: object) -> None:
        raise torch.OutOfMemoryError("on purpose")

    with monkeypatch.context() as patch:
        patch.setattr("optimem.life.tied.Ties", refuse)  # by then all has moved
        with pytest.raises(torch.OutOfMemoryError, match="on purpose"):
            optimem.page(model, card)
    assert found(model) == before
    assert values(model) == held
    gc.collect()
    assert torch.accelerator.memory_allocated() == taken
    assert optimem.page(model, card) is model


@pytest.mark.parametrize("inner", ["layers", "layers.1"])
def test_a_part_of_an_attached_model_is_not_attached_again(card: torch.device, inner: str) -> None:
    model = models.Stack().eval()
    part = model.get_submodule(inner)
    optimem.page(model, card)
    with pytest.raises(optimem.BadInput, match="attached already"):
        optimem.page(part, card)
    optimem.page(optimem.detach(model).get_submodule(inner), card)
    with pytest.raises(optimem.BadInput, match=f"module {inner} is attached already"):
        optimem.page(model, card)
    optimem.detach(part)
    assert optimem.page(model, card) is model


def test_a_model_that_shares_a_parameter_with_an_attached_one_is_refused(card: torch.device) -> None:
    first, second = models.Stack().eval(), models.Stack().eval()
    second.layers[1].weight = first.layers[2].weight
    optimem.page(first, card)
    with pytest.raises(optimem.BadInput, match=r"layers\.1\.weight belongs to a model that is attached already"):
        optimem.page(second, card)
    optimem.detach(first)
    assert forwards(paged(second)) == forwards(optimem.detach(second))


@pytest.mark.parametrize("entry", ["refused", "out of memory"])
def test_a_forward_that_does_not_begin_leaves_no_trace(
    card: torch.device, monkeypatch: pytest.MonkeyPatch, entry: str
) -> None:
    """With grad enabled weights are frozen while the model runs, and the caller's list holds what is on the card."""

    class Takes(models.Stack):
        def forward(self, inputs: list[torch.Tensor]) -> Any:  # type: ignore[override]
            return super().forward(inputs[0])

    model = optimem.page(Takes().eval(), card, vram="60%")
    before = [parameter.requires_grad for parameter in model.parameters()]
    inputs = [models.rows()]
    given = list(inputs)
    with torch.enable_grad():
        model(inputs)
        what = optimem.BadInput("no") if entry == "refused" else torch.OutOfMemoryError("none")
        with monkeypatch.context() as patch:
            patch.setattr("optimem.life.calls.PlannedCall.start", raising(what))
            with pytest.raises(type(what)):
                model(inputs)
        assert (inputs[0] is given[0], len(inputs)) == (True, 1)
        assert [parameter.requires_grad for parameter in model.parameters()] == before
        model(inputs)
    optimem.detach(model)
    assert [parameter.requires_grad for parameter in model.parameters()] == before == [True] * len(before)


def raising(error: BaseException) -> Any:
    """Return something that raises `error` when it is called."""

    def call(*arguments: object) -> None:
        raise error

    return call


@pytest.mark.trap(11)
def test_what_is_thrown_into_a_generator_arrives(card: torch.device) -> None:
    class Asked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(models.WIDTH, models.WIDTH)

        def forward(self, x: torch.Tensor) -> Any:
            try:
                yield self.layer(x)
            except ValueError:
                yield self.layer(x * 2)

    plain = Asked().eval()
    model = optimem.page(copy.deepcopy(plain), card)
    with torch.no_grad():
        got, wanted = model(models.rows()), plain(models.rows())
        assert bits(next(got)) == bits(next(wanted))
        assert bits(got.throw(ValueError())) == bits(wanted.throw(ValueError()))


def test_a_model_that_writes_to_its_weights_is_refused(card: torch.device) -> None:
    class Writes(models.Stack):
        def forward(self, x: torch.Tensor) -> Any:
            self.layers[0].bias.add_(1)
            return super().forward(x)

    model = optimem.page(Writes().eval(), card, vram="60%")
    for _ in range(2):
        with torch.no_grad(), pytest.raises(optimem.BadInput, match="written to its own weights"):
            model(models.rows())
    assert model.layers[0].weight.device.type == "cpu"


@pytest.mark.trap(4)
@MODES
def test_after_ctrl_c_detach_leaves_no_modes(card: torch.device, attach: Any) -> None:
    model = attach(models.Raises().eval(), card, vram="60%")
    model.armed = KeyboardInterrupt
    with torch.no_grad(), pytest.raises(KeyboardInterrupt):
        model(models.rows())
    optimem.detach(model)
    assert not torch.overrides._get_current_function_mode_stack()
    assert torch.is_autocast_cache_enabled()


def test_what_goes_wrong_at_the_end_of_a_forward_leaves_a_working_model(
    card: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = models.Stack().eval()
    model, x = optimem.page(copy.deepcopy(plain), card, vram="60%"), models.rows()

    def refuse(*arguments: object) -> None:
        raise torch.OutOfMemoryError("on purpose")

    with torch.no_grad():
        for calls in (1, 1, 3):
            with monkeypatch.context() as patch:
                patch.setattr("optimem.life.callers.own_copies", refuse)
                with pytest.raises(torch.OutOfMemoryError, match="on purpose"):
                    model(x)
            for _ in range(calls):
                assert bits(model(x)) == bits(plain(x))
