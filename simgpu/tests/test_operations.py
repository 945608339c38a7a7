"""Operations: the same bits as the CPU, aliasing, in-place, out=, views, errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from compare import assert_module_same, assert_same, to
from torch import nn

import simgpu

Case = Callable[..., Any]


def cases() -> dict[str, tuple[Case, list[Any]]]:
    g = torch.Generator().manual_seed(0)

    def r(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=g)

    image = r(2, 6, 9, 9)
    return {
        "arithmetic": (lambda a, b: (a + b) * 2 - b / a, [r(3, 4), r(3, 4)]),
        "reductions": (lambda a: (a.sum(), a.mean(0), a.max(1), a.argmin(), a.std(), a.var(0), a.norm()), [r(5, 6)]),
        "comparisons": (
            lambda a, b: (a > b, a.eq(b), torch.isclose(a, b), (a > 0).any(), (a > 0).all(1)),
            [r(4, 2), r(4, 2)],
        ),
        "matmul family": (
            lambda a, b: (
                a @ b,
                torch.addmm(a[0, :1], a, b),
                torch.einsum("ij,jk->ki", a, b),
                torch.bmm(a[None], b[None]),
            ),
            [r(4, 5), r(5, 6)],
        ),
        "shapes": (
            lambda a: (
                a.t(),
                a.view(2, 6),
                a.reshape(3, 4),
                a.permute(1, 0),
                a.unsqueeze(0),
                a.flatten(),
                a[1:, ::2],
                a.chunk(2),
                a.split([1, 3], 1),
                a.unfold(1, 2, 1),
                a.diagonal(),
                a.expand(2, 3, 4),
                a.movedim(0, 1),
                a.unbind(),
                a.narrow(1, 1, 2),
                a.select(0, 1),
                a.squeeze(),
                a.swapaxes(0, 1),
            ),
            [r(3, 4)],
        ),
        "joining": (lambda a, b: (torch.cat([a, b]), torch.stack([a, b], 1), torch.hstack([a, b])), [r(3, 4), r(3, 4)]),
        "sorting": (lambda a: (a.sort(1), a.topk(2), a.argsort(), a.median(), a.kthvalue(2)), [r(5, 6)]),
        "indexing": (
            lambda a, i: (a[i], a.index_select(0, i), a.gather(0, i[:, None].expand(3, 4)), a.take(i), a[i, i]),
            [r(5, 4), torch.tensor([0, 2, 1])],
        ),
        "scattering": (
            lambda a, i, s: (a.index_add(0, i, s), a.scatter(0, i[:, None].expand(3, 4), s), a.index_copy(0, i, s)),
            [r(5, 4), torch.tensor([0, 2, 1]), r(3, 4)],
        ),
        "masks": (
            lambda a: (
                a.masked_fill(a > 0, 0.0),
                a.masked_select(a > 0),
                a[a > 0],
                torch.where(a > 0, a, -a),
                a.nonzero(),
                a.clamp(-1, 1),
                a.tril(),
                a.triu(1),
            ),
            [r(5, 4)],
        ),
        "unique": (lambda a: (a.unique(), a.unique(return_counts=True)[1], a.bincount()), [torch.tensor([3, 1, 3, 2])]),
        "cumulative": (
            lambda a: (a.cumsum(0), a.cumprod(1), a.logcumsumexp(0), a.diff(), a.flip(0), a.roll(1)),
            [r(5, 4)],
        ),
        "activations": (
            lambda a: (
                F.relu(a),
                F.gelu(a),
                F.silu(a),
                F.softmax(a, 1),
                F.log_softmax(a, 1),
                F.elu(a),
                F.hardswish(a),
                F.mish(a),
                F.softplus(a),
                F.leaky_relu(a),
                F.glu(a),
                F.hardsigmoid(a),
                F.relu6(a),
            ),
            [r(5, 4)],
        ),
        "convolutions": (
            lambda x, w, d: (
                F.conv2d(x, w),
                F.conv2d(x, w, stride=2, padding=1),
                F.conv2d(x, d, groups=6, dilation=2),
                F.conv1d(x[:, :, 0], w[:, :, 0]),
                F.conv_transpose2d(x, w.transpose(0, 1).contiguous(), stride=2),
                F.conv3d(x[:, :, None], w[:, :, None]),
            ),
            [image, r(4, 6, 3, 3), r(6, 1, 3, 3)],
        ),
        "channels last convolution": (
            lambda x, w: F.conv2d(x, w, padding=1),
            [image.to(memory_format=torch.channels_last), r(4, 6, 3, 3).to(memory_format=torch.channels_last)],
        ),
        "pooling": (
            lambda x: (
                F.max_pool2d(x, 2),
                F.avg_pool2d(x, 3, 1, 1),
                F.adaptive_avg_pool2d(x, 1),
                F.adaptive_avg_pool2d(x, 3),
                F.adaptive_max_pool2d(x, 2),
                F.max_pool1d(x[0], 3),
                F.lp_pool2d(x, 2, 2),
            ),
            [image],
        ),
        "resampling": (
            lambda x: (
                F.interpolate(x, scale_factor=2),
                F.interpolate(x, (5, 7), mode="bilinear", align_corners=False),
                F.interpolate(x, (12, 12), mode="bicubic", antialias=True),
                F.pad(x, (1, 2, 0, 1), mode="reflect"),
                F.pad(x, (1, 1, 2, 2)),
                F.pixel_shuffle(x[:, :4], 2),
                F.grid_sample(x, torch.zeros(2, 4, 4, 2, device=x.device), align_corners=False),
                F.unfold(x, 3),
                F.affine_grid(torch.eye(2, 3, device=x.device)[None], [1, 1, 4, 4], False),
            ),
            [image],
        ),
        "normalisations": (
            lambda x, w, b: (
                F.layer_norm(x, (9,), w, b),
                F.group_norm(x, 3),
                F.instance_norm(x),
                F.batch_norm(x, torch.zeros(6, device=x.device), torch.ones(6, device=x.device)),
                F.local_response_norm(x, 2),
                F.normalize(x),
                F.rms_norm(x, (9,), w),
            ),
            [image, r(9), r(9)],
        ),
        "attention": (
            lambda q, k, v: (
                F.scaled_dot_product_attention(q, k, v),
                F.scaled_dot_product_attention(q, k, v, is_causal=True),
                F.scaled_dot_product_attention(q, k, v, torch.ones(5, 5, device=q.device).tril().bool()),
                F.scaled_dot_product_attention(q, q, q),
            ),
            [r(2, 3, 5, 8), r(2, 3, 5, 8), r(2, 3, 5, 8)],
        ),
        "half": (
            lambda x, w, c: (
                F.linear(x, w),
                F.layer_norm(x, (6,)),
                F.softmax(x, 1),
                x @ w.t(),
                F.conv2d(c, c[:, :, :3, :3]),
            ),
            [r(4, 6).half(), r(3, 6).half(), image.half()],
        ),
        "bfloat16": (
            lambda x, w, c: (
                F.linear(x, w),
                F.layer_norm(x, (6,)),
                F.softmax(x, 1),
                x @ w.t(),
                F.conv2d(c, c[:, :, :3, :3]),
            ),
            [r(4, 6).bfloat16(), r(3, 6).bfloat16(), image.bfloat16()],
        ),
        "complex": (
            lambda z: (
                z * z.conj(),
                z.abs(),
                z.angle(),
                torch.view_as_real(z),
                z.real + z.imag,
                z @ z.mH,
                torch.fft.fft(z),
                torch.fft.irfft(z),
                z.conj().t() @ z,
            ),
            [torch.complex(r(4, 4), r(4, 4))],
        ),
        "spectral": (
            lambda a: (
                torch.fft.rfft(a),
                torch.stft(a, 8, return_complex=True, window=torch.hann_window(8, device=a.device)),
                torch.fft.fftshift(a),
            ),
            [r(2, 32)],
        ),
        "linear algebra": (
            lambda a: (
                torch.linalg.inv(a),
                torch.linalg.qr(a),
                torch.linalg.cholesky(a @ a.t() + 9 * torch.eye(4, device=a.device)),
                torch.linalg.solve(a, a),
                torch.det(a),
                torch.linalg.svdvals(a),
                torch.linalg.matrix_exp(a),
                a.trace(),
            ),
            [r(4, 4)],
        ),
        "embedding": (
            lambda i, w: (
                F.embedding(i, w),
                F.embedding_bag(i, w, torch.tensor([0, 2], device=i.device)),
                F.one_hot(i),
            ),
            [torch.tensor([0, 2, 4, 1]), r(5, 3)],
        ),
        "factories": (
            lambda a: (
                torch.zeros_like(a),
                a.new_ones(2),
                torch.full_like(a, 3.0),
                a.new_tensor([1.0, 2.0]),
                torch.arange(0, 5, device=a.device),
                torch.linspace(0, 1, 5, device=a.device),
                torch.eye(3, device=a.device),
                torch.tril_indices(3, 3, device=a.device),
                torch.meshgrid(a[0], a[1], indexing="ij"),
                torch.logspace(0, 1, 3, device=a.device),
            ),
            [r(3, 4)],
        ),
        "conversions": (
            lambda a: (a.long(), a.half(), a.double(), a.bool(), a.to(torch.uint8), a.type_as(a.double())),
            [r(3, 4).abs()],
        ),
        "losses": (
            lambda a, t: (
                F.cross_entropy(a, t),
                F.nll_loss(a.log_softmax(1), t),
                F.mse_loss(a, a + 1),
                F.smooth_l1_loss(a, a * 2),
            ),
            [r(4, 5), torch.tensor([0, 1, 2, 3])],
        ),
        "foreach": (lambda a, b: (torch._foreach_add([a, b], 1.0), torch._foreach_mul([a, b], [b, a])), [r(3), r(3)]),
        "searching": (
            lambda a: (torch.bucketize(a, a.sort().values), torch.isin(a, a[:2]), a.histc(4), a.isfinite()),
            [r(6)],
        ),
        "distances": (
            lambda a: (torch.cdist(a, a + 1), F.cosine_similarity(a, a + 1), F.pairwise_distance(a, a + 1)),
            [r(4, 3)],
        ),
        "bits": (lambda a: (a & 3, a | 4, a ^ 1, ~a, a << 1, a // 2, a % 3), [torch.arange(8)]),
    }


@pytest.mark.parametrize("grad", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("name", list(cases()))
def test_same_bits_as_the_cpu(name: str, grad: Callable[[], Any]) -> None:
    run, arguments = cases()[name]
    with grad():
        assert_same(run(*arguments), run(*to(arguments, "simgpu")))


MODULES: dict[str, Callable[[], tuple[nn.Module, tuple[Any, ...]]]] = {
    "lstm": lambda: (nn.LSTM(5, 6, 2, bidirectional=True), (torch.randn(4, 3, 5),)),
    "lstm with state": lambda: (nn.LSTM(5, 6), (torch.randn(4, 3, 5), (torch.zeros(1, 3, 6), torch.ones(1, 3, 6)))),
    "lstm with projection": lambda: (nn.LSTM(5, 6, proj_size=2), (torch.randn(4, 3, 5),)),
    "gru": lambda: (nn.GRU(5, 6, 2, batch_first=True), (torch.randn(4, 3, 5),)),
    "rnn": lambda: (nn.RNN(5, 6, nonlinearity="relu"), (torch.randn(4, 3, 5),)),
    "cells": lambda: (nn.LSTMCell(5, 6), (torch.randn(3, 5),)),
    "attention": lambda: (nn.MultiheadAttention(16, 4, batch_first=True), (torch.randn(2, 5, 16),) * 3),
    "encoder": lambda: (
        nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 4, 32, batch_first=True), 2),
        (torch.randn(2, 5, 16),),
    ),
    "encoder, norm first, gelu": lambda: (
        nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, norm_first=True, activation="gelu"),
        (torch.randn(2, 5, 16),),
    ),
    "transformer": lambda: (nn.Transformer(16, 4, 1, 1, 32, batch_first=True), (torch.randn(2, 5, 16),) * 2),
    "bag": lambda: (nn.EmbeddingBag(10, 4), (torch.tensor([[1, 2], [3, 4]]),)),
    "weight norm": lambda: (nn.utils.parametrizations.weight_norm(nn.Linear(5, 6)), (torch.randn(3, 5),)),
    "spectral norm": lambda: (nn.utils.parametrizations.spectral_norm(nn.Linear(5, 6)), (torch.randn(3, 5),)),
}


@pytest.mark.parametrize("name", list(MODULES))
def test_modules(name: str) -> None:
    module, arguments = MODULES[name]()
    assert_module_same(module, *arguments)


def test_fast_paths_are_taken() -> None:
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True).eval().to("simgpu")
    x = torch.randn(2, 5, 16, device="simgpu")
    simgpu.reset_counters()
    with torch.inference_mode():
        layer(x)
    assert simgpu.counters()["kernels"] == 1


def test_encoders_with_padding_do_not_nest() -> None:
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 4, 32, batch_first=True), 2).eval()
    x, padding = torch.randn(2, 5, 16), torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    with torch.inference_mode():
        expected = encoder(x, src_key_padding_mask=padding)
    encoder.to("simgpu")
    with torch.inference_mode():
        got = encoder(x.to("simgpu"), src_key_padding_mask=padding.to("simgpu")).cpu()
    torch.testing.assert_close(got[0], expected[0])
    torch.testing.assert_close(got[1, :3], expected[1, :3])


def test_views_alias() -> None:
    a = torch.zeros(4, 4, device="simgpu")
    for view in (
        a.t(),
        a[1:3],
        a.view(2, 8),
        a.unfold(0, 2, 2),
        a.expand(3, 4, 4),
        a.unsqueeze(0),
        a.detach(),
        a.diagonal(),
    ):
        assert view.untyped_storage().data_ptr() == a.untyped_storage().data_ptr()
    a[1].fill_(5)
    assert a.t()[0, 1].item() == 5
    z = torch.zeros(3, dtype=torch.complex64, device="simgpu")
    torch.view_as_real(z)[:, 0] = 2
    assert z[0].item() == 2
    halves = a.split(2)
    halves[0].fill_(9)
    assert a.sum().item() == 72


def test_in_place_returns_itself() -> None:
    a = torch.ones(3, device="simgpu")
    version = a._version
    b = a.add_(1)
    assert b is a
    assert a._version == version + 1
    a.mul_(a)
    assert a.tolist() == [4, 4, 4]
    a.transpose_(0, 0).unsqueeze_(0)
    assert a.shape == (1, 3)
    a.squeeze_()
    assert a.shape == (3,)


def test_out_arguments() -> None:
    a = torch.randn(4, 5, device="simgpu")
    out = torch.empty(4, 5, device="simgpu")
    pointer = out.data_ptr()
    result = torch.mul(a, 2, out=out)
    assert result is out
    assert out.data_ptr() == pointer
    assert torch.equal(out, a * 2)
    grown = torch.empty(0, device="simgpu")
    before = simgpu.memory_allocated()
    torch.cat([a, a], out=grown)
    assert grown.shape == (8, 5)
    assert torch.equal(grown[4:], a)
    assert simgpu.memory_allocated() - before == 512
    values, indices = torch.empty(0, device="simgpu"), torch.empty(0, dtype=torch.long, device="simgpu")
    torch.max(a, 1, out=(values, indices))
    assert torch.equal(values, a.max(1).values)


def test_an_out_view_grows_with_its_base() -> None:
    base = torch.empty(0, device="simgpu")
    view = base.view(0)
    torch.arange(5, out=view)
    assert view.tolist() == [0, 1, 2, 3, 4]
    assert base.untyped_storage().data_ptr() == view.data_ptr()


def test_results_that_share_memory_share_it() -> None:
    a = torch.arange(6.0, device="simgpu")
    b = torch.ops.aten.unsafe_split.Tensor(a, 3)
    assert [t.tolist() for t in b] == [[0, 1, 2], [3, 4, 5]]


def test_what_is_not_dense_is_refused() -> None:
    with pytest.raises(NotImplementedError, match="dense tensors only"):
        torch.eye(3, device="simgpu").to_sparse()
    with pytest.raises((NotImplementedError, RuntimeError)):
        torch.quantize_per_tensor(torch.ones(3, device="simgpu"), 0.1, 0, torch.qint8)


def test_errors_of_kernels_arrive() -> None:
    with pytest.raises(RuntimeError, match="must match"):
        torch.ones(3, device="simgpu") + torch.ones(4, device="simgpu")
    with pytest.raises(IndexError):
        torch.ones(3, device="simgpu")[torch.tensor([7])]
    assert torch.ones(3, device="simgpu").sum().item() == 3


def test_operations_registered_later() -> None:
    library = torch.library.Library("simgpu_test", "DEF")
    library.define("twice(Tensor x) -> Tensor")
    library.impl("twice", lambda x: x * 2, "CPU")
    x = torch.ones(3, device="simgpu")
    assert torch.ops.simgpu_test.twice(x).tolist() == [2, 2, 2]
    assert torch.ops.simgpu_test.twice(x).device.type == "simgpu"


def test_gradients_of_plain_operations() -> None:
    layer = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2))
    x = torch.randn(2, 3, 6, 6)
    layer(x).sum().backward()
    expected = [p.grad.clone() for p in layer.parameters()]
    layer.zero_grad()
    card = layer.to("simgpu")
    for module in card.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
    card(x.to("simgpu")).sum().backward()
    for p, e in zip(card.parameters(), expected, strict=True):
        assert p.grad.device.type == "simgpu"
        torch.testing.assert_close(p.grad.cpu(), e)


def test_gradients_that_are_missing_say_so() -> None:
    q = torch.randn(1, 2, 3, 4, device="simgpu", requires_grad=True)
    out = F.scaled_dot_product_attention(q, q, q)
    assert out.requires_grad
    with pytest.raises(RuntimeError, match="not implemented"):
        out.sum().backward()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(dtype: torch.dtype) -> None:
    layer, x = nn.Linear(4, 4).to("simgpu"), torch.randn(2, 4, device="simgpu")
    with torch.no_grad(), torch.autocast("simgpu", dtype=dtype):
        got = layer(x)
        assert got.dtype == dtype
        assert F.layer_norm(got, (4,)).dtype == torch.float32
    with torch.no_grad():
        assert torch.equal(got, F.linear(x.to(dtype), layer.weight.to(dtype), layer.bias.to(dtype)))
        assert layer(x).dtype == torch.float32


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compile(backend: str) -> None:
    layer, x = (
        nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.LayerNorm(4)).eval().to("simgpu"),
        torch.randn(2, 4, device="simgpu"),
    )
    with torch.no_grad():
        assert torch.equal(torch.compile(layer, backend=backend)(x), layer(x))


def test_profiling_and_fake_tensors() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        torch.ones(3, device="simgpu") + 1
    assert any("aten::add" in event.name for event in profile.events())
    with FakeTensorMode():
        fake = torch.empty(4, 4, device="simgpu")
        assert (fake @ fake).device.type == "simgpu"
