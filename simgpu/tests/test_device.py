"""The device module: what torch and programs ask of it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

import simgpu


def test_the_package_is_the_device_module() -> None:
    assert torch.simgpu is simgpu
    assert torch.get_device_module("simgpu") is simgpu
    assert torch.simgpu.simulated is True
    assert simgpu.is_available()
    assert simgpu.is_initialized()
    assert simgpu.device_count() == 1
    assert simgpu.current_device() == 0
    assert simgpu.get_device_name() == "Simulated NVIDIA GeForce RTX 3060"
    assert simgpu.is_bf16_supported()


def test_the_card_is_the_accelerator() -> None:
    assert torch.accelerator.is_available()
    assert torch.accelerator.current_accelerator() == torch.device("simgpu")
    assert torch.accelerator.device_count() == 1
    assert torch.accelerator.current_device_index() == 0
    torch.accelerator.set_device_index(0)
    if hasattr(torch.accelerator, "get_device_capability"):
        assert torch.bfloat16 in torch.accelerator.get_device_capability()["supported_dtypes"]


def test_properties() -> None:
    properties = simgpu.get_device_properties(0)
    assert properties.name == "Simulated NVIDIA GeForce RTX 3060"
    assert properties.total_memory == 12 << 30
    assert len(properties.uuid) == 36


def test_there_is_only_one_card() -> None:
    simgpu.set_device("simgpu:0")
    with pytest.raises(ValueError, match="one simulated card"):
        simgpu.set_device(1)
    with pytest.raises(ValueError, match="expected a simgpu device"):
        simgpu.set_device("cpu")
    with pytest.raises(RuntimeError, match="invalid device ordinal 1"):
        torch.empty(1, device="simgpu:1")


def test_device_contexts() -> None:
    with simgpu.device(0), torch.device("simgpu"):
        assert torch.ones(3).device == torch.device("simgpu:0")
    assert torch.ones(3).device.type == "cpu"


def test_default_device() -> None:
    # In a process of its own: torch 2.9 cannot undo a default device.
    code = """
import torch, simgpu
torch.set_default_device("simgpu")
layer = torch.nn.Linear(3, 4)
print(layer.weight.device, torch.tensor([1.0]).device, torch.arange(5).device, layer(torch.ones(2, 3)).device)
"""
    done = _import_with({}, code)
    assert done.stdout.split() == ["simgpu:0"] * 4, done.stderr


def test_generated_methods() -> None:
    tensor = torch.ones(3).simgpu()
    assert tensor.is_simgpu
    assert not torch.ones(3).is_simgpu
    assert torch.nn.Linear(2, 2).simgpu().weight.is_simgpu
    assert torch.ones(3).untyped_storage().simgpu().device.type == "simgpu"


def _import_with(variables: dict[str, str], code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4096", 4096),
        ("12GiB", 12 << 30),
        ("1.5 GiB", 3 << 29),
        ("500MB", 500_000_000),
        ("64KiB", 65536),
        ("2gb", 2 * 10**9),
    ],
)
def test_sizes_are_read(text: str, size: int) -> None:
    simgpu.set_capacity(text)
    assert simgpu.capacity() == size


@pytest.mark.parametrize("text", ["", "many", "-5", "12 XiB", "1e9", "9" * 30])
def test_nonsense_sizes_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="capacity"):
        simgpu.set_capacity(text)


def test_environment() -> None:
    code = "import simgpu, torch; print(simgpu.capacity(), torch.empty(2, device='simgpu').isnan().all().item())"
    done = _import_with(
        {"SIMGPU_CARD": f"own-{os.getpid()}", "SIMGPU_CAPACITY": "6GiB", "SIMGPU_FILL_FREED": "1"}, code
    )
    assert done.stdout.split() == [str(6 << 30), "True"], done.stderr


NONSENSE = {
    ("SIMGPU_CAPACITY", "lots"): "SIMGPU_CAPACITY='lots' is not a size",
    ("SIMGPU_PROFILE", "gtx"): "SIMGPU_PROFILE='gtx': 'gtx' is not a profile: known are a100",
    ("SIMGPU_LINK", "pcie9"): "generation 9 is not known",
    ("SIMGPU_HOST", "abacus"): "'abacus' is not a host profile: known are desktop, server",
    ("SIMGPU_HOST_CLOCK", "sun"): "'sun' is not a host clock: give 'model' or 'measured'",
    ("SIMGPU_CARD", "../x"): "../x",
}
# Torch is imported once, by the parent of all that try: that takes seconds.
TRY_EACH = f"""
import os, sys, torch
for variable, value in {list(NONSENSE)}:
    pid = os.fork()
    if pid == 0:
        os.environ[variable] = value
        try:
            import simgpu
        except (ValueError, RuntimeError) as error:
            print(error, flush=True)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
"""


def test_environment_nonsense_names_the_value_and_what_is_known() -> None:
    done = _import_with({"TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}, TRY_EACH)
    said = done.stdout.splitlines()
    assert len(said) == len(NONSENSE), done
    for line, words in zip(said, NONSENSE.values(), strict=True):
        assert words in line


def test_the_environment_chooses_the_card() -> None:
    chosen = {"SIMGPU_CARD": f"own-{os.getpid()}", "SIMGPU_PROFILE": "t4", "SIMGPU_LINK": "x4", "SIMGPU_HOST": "server"}
    done = _import_with(chosen, "import simgpu; print(simgpu.get_device_name(), simgpu.link_now(), simgpu.capacity())")
    assert done.stdout.split()[-3:] == ["T4", "pcie3x4", str(16 << 30)], done.stderr


def test_another_card_is_used_only_while_this_one_is_empty() -> None:
    held = torch.ones(3, device="simgpu")
    with pytest.raises(RuntimeError, match=r"512 bytes of it are in use: delete the tensors on it first"):
        simgpu.use_profile("rtx4090")
    del held
    simgpu.use_profile("rtx4090", link="pcie3x8", capacity="1GiB")
    assert simgpu.current_profile().key == "rtx4090"
    assert simgpu.get_device_capability() == (8, 9)
    assert simgpu.mem_get_info() == (1 << 30, 1 << 30)
    assert simgpu.link_now() == "pcie3x8"


def test_import_and_exit_are_clean() -> None:
    done = _import_with({}, "import simgpu, torch; x = torch.ones(5, device='simgpu'); torch.save(x, '/dev/null')")
    assert done.returncode == 0
    assert done.stderr == ""


def test_links_and_hosts_of_ones_own() -> None:
    simgpu.use_profile(link=simgpu.profile.Link(generation=3, width=2, pinned=4_000, pageable=1_000, latency_ns=5))
    assert simgpu.link_now() == "pcie3x2"
    for wrong, words in [
        ({"generation": 8}, "generation 8"),
        ({"pinned": 4_001}, "pinned = 4001"),
        ({"width": 0}, "pinned"),
    ]:
        given = {"generation": 3, "width": 2, "pinned": 4_000, "pageable": 1_000, "latency_ns": 5, **wrong}
        with pytest.raises(ValueError, match=f"{words} is not accepted|{words} ="):
            simgpu.use_profile(link=simgpu.profile.Link(**given))
