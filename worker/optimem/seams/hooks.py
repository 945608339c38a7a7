"""Tie a live module and untie it: native hooks with handles, nothing else.

Our pre-hook is the first, and our exit hook runs on exceptions too. Hooks belong to objects, so that copying or pickling a
tied model raises an error with the next step, instead of running the original's weights.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Set
from types import FrameType
from typing import Any, NoReturn

import torch
from torch import nn
from torch._C._functorch import peek_interpreter_stack
from torch.utils.hooks import RemovableHandle

from ..errors import BadInput, OptimemError
from .compiled import forget_graphs, outside_graphs
from .frames import make_room
from .gate import Gate

Enter = Callable[[str, tuple[Any, ...], dict[str, Any], FrameType], "tuple[tuple[Any, ...], dict[str, Any]] | None"]
Leave = Callable[[str, Any], Any]


_TRANSFORMED = (
    "{} is called inside of a torch.func transform (jvp, grad, vmap ...), in which weights cannot come and go; call "
    "optimem.detach(model) to use such, or call the transform outside of what is paged"
)


class Hook:
    """Base of all hooks. A hook cannot be copied: the copy would call the original's weights."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __deepcopy__(self, memo: object) -> NoReturn:
        raise OptimemError(
            "a paged model cannot be copied or pickled; call optimem.detach(model) first, or use state_dict()"
        )

    def __reduce__(self) -> NoReturn:
        self.__deepcopy__(None)


def is_tied(module: nn.Module) -> bool:
    """Tell whether `module` is tied, by itself or as part of another model."""
    return any(isinstance(getattr(hook, "hook", hook), _LoadHook) for hook in module._load_state_dict_pre_hooks.values())


class _Tie(Hook):
    """The hooks at one module's entry and exit. They are bound methods, which torch calls faster than objects.

    An `idle` tie acts on outermost calls alone; inside of another call it only asks the gate. A `bare` one is of a module
    without tensors: it acts inside of our calls alone, since such a module may be part of other models too.
    """

    def __init__(self, path: str, gate: Gate, enter: Enter, leave: Leave, *, bare: bool) -> None:
        super().__init__(path)
        self.idle = False
        self._bare = bare
        self._gate = gate
        self._enter = enter
        self._leave = leave

    def to(self, module: nn.Module) -> tuple[RemovableHandle, RemovableHandle]:
        """Hook `module`."""
        return (
            module.register_forward_pre_hook(self._entered, prepend=True, with_kwargs=True),
            module.register_forward_hook(self._left, always_call=True),
        )

    def off(self, module: nn.Module) -> None:
        """Remove our hooks from `module` if their handles are lost."""
        tables = (module._forward_pre_hooks, module._forward_hooks)
        kinds = (module._forward_pre_hooks_with_kwargs, module._forward_hooks_always_called)
        for table, kind in zip(tables, kinds, strict=True):
            for key in [key for key, hook in table.items() if getattr(hook, "__self__", None) is self]:
                del table[key]  # first: a hook without its kind would be called in the wrong way
            for key in kind.keys() - table.keys():  # also what is left if this was cut short
                kind.pop(key, None)

    def _passes(self) -> bool:
        """Tell whether a call is none that we follow."""
        return (self.idle and self._gate.is_inside(self.path)) or (self._bare and not self._gate.is_inside(self.path))

    @outside_graphs
    def _entered(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._passes():
            return None
        if not self._bare and peek_interpreter_stack() is not None:
            raise BadInput(_TRANSFORMED.format(self.path or "the model"))
        return self._enter(self.path, args, kwargs, sys._getframe(1))

    @outside_graphs
    def _left(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        if self._passes():
            return None
        return self._leave(self.path, output)


class _LoadHook(Hook):
    """Before a state_dict is loaded: waits for copies that read the masters."""

    def __init__(self, path: str, settle: Callable[[], None]) -> None:
        super().__init__(path)
        self._settle = settle

    @outside_graphs
    def __call__(self, *arguments: Any) -> None:
        self._settle()


class _SaveHook(Hook):
    """After a state_dict is made: tensors on the device are replaced by copies on the CPU, where all weights are, so that a
    file which holds them loads anywhere. Leaves live tensors (`keep_vars`) alone."""

    _from_public_api = True  # as register_state_dict_post_hook marks hooks

    @outside_graphs
    def __call__(self, module: nn.Module, state: dict[str, Any], prefix: str, local_metadata: Any) -> None:
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            saved = state.get(prefix + name)
            if isinstance(saved, torch.Tensor) and saved is not tensor and saved.device.type != "cpu":
                state[prefix + name] = saved.cpu()


class Everywhere:
    """The hooks that run before and after every module of the process: they may read weights, and no recording knows that of
    those that came later."""

    def __init__(self) -> None:
        self._known = self._now()

    def changed(self) -> bool:
        """Tell whether such hooks have come or gone since the last call."""
        before, self._known = self._known, self._now()
        return before != self._known

    def _now(self) -> tuple[int, ...]:
        return (*torch.nn.modules.module._global_forward_pre_hooks, *torch.nn.modules.module._global_forward_hooks)


class Ties:
    """The hooks on one model."""

    def __init__(self, model: nn.Module, gate: Gate, enter: Enter, leave: Leave, settle: Callable[[], None]) -> None:
        self._modules = dict(model.named_modules())
        make_room(self._modules)
        bare = {path for path, module in self._modules.items() if path and is_bare(module)}
        self._ties = {path: _Tie(path, gate, enter, leave, bare=path in bare) for path in self._modules}
        self._handles: dict[str, tuple[RemovableHandle, RemovableHandle]] = {}
        self._loads = {path: _LoadHook(path, settle) for path in self._modules if path not in bare}
        self._saves = {path: _SaveHook(path) for path in self._loads}

    @property
    def paths(self) -> set[str]:
        """Dotted paths of all modules of the model; the root's is empty."""
        return set(self._modules)

    @property
    def entrances(self) -> set[str]:
        """Paths at which a call may begin without the root's forward, as in `vae.decode(z)`: modules with children, and
        modules held directly or in lists by the root or by modules with methods of their own."""
        found = {path for path, module in self._modules.items() if next(module.children(), None) is not None}
        lists = {path for path in found if not path or _has_ways_in(self._modules[path])}
        return found | {path for path in self._modules if path.rpartition(".")[0] in lists}

    def untie(self) -> None:
        """Remove every hook. Idempotent."""
        self.set(set())
        self._remove_strays()
        for path in self._loads:
            module, ours = self._modules[path], (self._loads[path], self._saves[path])
            for table in (module._load_state_dict_pre_hooks, module._state_dict_hooks):
                for key in [key for key, hook in table.items() if getattr(hook, "hook", hook) in ours]:
                    del table[key]

    def tie_state_dicts(self) -> None:
        """Hook the loading and the making of a state_dict, in every module that has tensors."""
        for path in self._loads:
            self._modules[path].register_load_state_dict_pre_hook(self._loads[path])
            self._modules[path].register_state_dict_post_hook(self._saves[path])

    def tie_anew(self) -> None:
        """Tie all modules, whatever hooks a `set` that was cut short has left."""
        self._handles = {}
        self._remove_strays()
        self.set(self.paths)

    def set(self, busy: set[str], entrances: Set[str] = frozenset()) -> None:
        """Tie the modules at `busy`, for every call, and those at `entrances`, for outermost calls. No others."""
        paths = busy | entrances
        if paths != self._handles.keys():
            forget_graphs()
        for path in self._handles.keys() - paths:
            for handle in self._handles[path]:
                handle.remove()
            del self._handles[path]
        for path in paths - self._handles.keys():
            self._handles[path] = self._ties[path].to(self._modules[path])
        for path in paths:
            self._ties[path].idle = bool(path) and path not in busy

    def _remove_strays(self) -> None:
        """Remove our hooks that have no handle."""
        for path, module in self._modules.items():
            if path not in self._handles:
                self._ties[path].off(module)


def is_bare(module: nn.Module) -> bool:
    """Tell whether neither `module` nor a module in it has parameters or buffers."""
    return next(module.parameters(), None) is None and next(module.buffers(), None) is None


def _has_ways_in(module: nn.Module) -> bool:
    """Tell whether the children of `module` may be called without its forward: it is a list, or its class has public methods
    of its own."""
    if isinstance(module, (nn.ModuleList, nn.ModuleDict)):
        return True
    classes = [kind for kind in type(module).__mro__ if not kind.__module__.startswith("torch.nn.")]
    return any(
        callable(method) and not name.startswith("_") and name != "forward"
        for kind in classes
        if issubclass(kind, nn.Module)
        for name, method in vars(kind).items()
    )
