"""The targets of `optimemctl run`: a model and the arguments to call it with."""

from __future__ import annotations

import difflib
import importlib.util
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import BadInput

# Mean and standard deviation of ImageNet's photographs per channel: torchvision's classifiers expect normalised input.
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_FRAMES = 16  # of a video model's input


@dataclass(frozen=True)
class Call:
    """A model, the arguments to call it with, and a judge that rates an output (on the CPU) in words."""

    model: nn.Module
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    judge: Callable[[Any], str] | None = None


def load(target: str, photo: str | None, size: tuple[int, int], seed: int) -> Call:
    """Return what `target` names: `torchvision:NAME` or `file.py:factory`. `size` is (width, height). Raises BadInput."""
    kind, _, name = target.rpartition(":")
    torch.manual_seed(seed)
    call = _torchvision(name, photo, size) if kind == "torchvision" else _factory(kind, name, photo, size)
    call.model.eval()
    return call


def read_photo(path: str, size: tuple[int, int]) -> torch.Tensor:
    """Return the photograph as a normalised tensor, shape (1, 3, height, width), float32. Raises BadInput."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            pixels = image.convert("RGB").resize(size)
    except UnidentifiedImageError as error:
        raise BadInput(f"{path} is no photo that can be read; give a JPEG or PNG file") from error
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise BadInput(f"the photo {path} cannot be read: {error}") from error
    flat = torch.frombuffer(bytearray(pixels.tobytes()), dtype=torch.uint8)
    channels = flat.view(size[1], size[0], 3).permute(2, 0, 1).float() / 255
    mean, deviation = (torch.tensor(values, device="cpu").view(3, 1, 1) for values in (_MEAN, _DEVIATION))
    return ((channels - mean) / deviation).unsqueeze(0).contiguous()


def _torchvision(name: str, photo: str | None, size: tuple[int, int]) -> Call:
    try:
        from torchvision import models
    except ImportError as error:
        raise BadInput(f"torchvision:{name} needs the package torchvision ({error}); install it first") from error
    known = [model for model in models.list_models() if not model.startswith("quantized_")]
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {len(known)}, for example resnet101"
        raise BadInput(f"torchvision has no model {name!r}; {hint}")
    extras = {"weights_backbone": None} if name in _with_backbone(models) else {}
    model = models.get_model(name, weights=None, **extras)
    image = read_photo(photo, size) if photo else torch.randn(1, 3, size[1], size[0], device="cpu")
    return Call(model, (_as_expected(models, name, image),))


def _with_backbone(models: Any) -> list[str]:
    return [*models.list_models(module=models.detection), *models.list_models(module=models.segmentation)]


def _as_expected(models: Any, name: str, image: torch.Tensor) -> Any:
    if name in models.list_models(module=models.detection):
        return [image[0]]
    if name in models.list_models(module=models.video):
        return image.unsqueeze(2).repeat(1, 1, _FRAMES, 1, 1)
    if name in models.list_models(module=models.optical_flow):
        raise BadInput(f"{name} compares two images; write a factory for it and run file.py:factory")
    return image


def _factory(file: str, name: str, photo: str | None, size: tuple[int, int]) -> Call:
    function = getattr(_import(file), name, None)
    if not callable(function):
        raise BadInput(f"{file} has no function {name}; name one that returns a model, or (model, inputs)")
    call = _as_call(function(), f"{file}:{name}")
    if photo:
        return Call(call.model, (read_photo(photo, size),), {}, call.judge)
    if not call.args and not call.kwargs and _wants_input(call.model):
        raise BadInput(f"{file}:{name} returned a model without inputs; return (model, inputs), or give --input")
    return call


def _as_call(made: Any, what: str) -> Call:
    parts = made if isinstance(made, tuple) else (made,)
    model, inputs, judge = (*parts, None, None, None)[:3]
    if not isinstance(model, nn.Module) or len(parts) > 3:
        raise BadInput(f"{what} returned {type(made).__name__}; return a model, (model, inputs) or (model, inputs, judge)")
    if isinstance(inputs, dict):
        return Call(model, (), inputs, judge)
    if inputs is None:
        return Call(model, judge=judge)
    return Call(model, inputs if isinstance(inputs, tuple) else (inputs,), {}, judge)


def _wants_input(model: nn.Module) -> bool:
    parameters = inspect.signature(model.forward).parameters.values()
    return any(p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)


def _import(file: str) -> Any:
    path = Path(file)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise BadInput(f"no such Python file: {file}; give torchvision:NAME, file.py:factory or script.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
