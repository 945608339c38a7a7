"""The card's NVML face, read by nvidia-ml-py as any reader reads a driver's."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pynvml as nvml
import pytest
from neighbour import Neighbour, World, library, world

GIB = 1 << 30


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    for name in ("SIMGPU_PROFILE", "SIMGPU_CAPACITY"):
        monkeypatch.delenv(name, raising=False)
    with world() as made:
        monkeypatch.setenv("SIMGPU_CARD", made.name)
        monkeypatch.setattr(nvml, "nvmlLib", ctypes.CDLL(library()))
        yield made


@pytest.fixture
def device(card: World) -> Iterator[object]:
    nvml.nvmlInit()
    yield nvml.nvmlDeviceGetHandleByIndex(0)
    nvml.nvmlShutdown()


def lacking(ask: object, *arguments: object) -> bool:
    try:
        ask(*arguments)  # type: ignore[operator]
    except nvml.NVMLError_NotSupported:
        return True
    return False


def test_an_idle_card_is_shown_as_its_profile_says_and_leaves_no_file(card: World, device: object) -> None:
    assert nvml.nvmlDeviceGetCount() == 1
    assert nvml.nvmlDeviceGetName(device) == "Simulated NVIDIA GeForce RTX 3060"
    memory = nvml.nvmlDeviceGetMemoryInfo(device)
    assert (memory.total, memory.free, memory.used) == (12 * GIB, 12 * GIB, 0)
    assert nvml.nvmlDeviceGetComputeRunningProcesses(device) == []
    assert not card.state.exists()


def test_what_a_card_is(card: World, device: object) -> None:
    assert nvml.nvmlDeviceGetIndex(device) == nvml.nvmlDeviceGetMinorNumber(device) == 0
    assert nvml.nvmlDeviceGetBrand(device) == nvml.NVML_BRAND_GEFORCE
    assert nvml.nvmlDeviceGetArchitecture(device) == nvml.NVML_DEVICE_ARCH_AMPERE
    assert tuple(nvml.nvmlDeviceGetCudaComputeCapability(device)) == (8, 6)
    assert nvml.nvmlDeviceGetBusType(device) == nvml.NVML_BUS_TYPE_PCIE
    assert nvml.nvmlDeviceGetEnforcedPowerLimit(device) == nvml.nvmlDeviceGetPowerManagementLimit(device) == 170_000
    assert tuple(nvml.nvmlDeviceGetMigMode(device)) == (0, 0)
    assert nvml.nvmlDeviceGetMaxMigDeviceCount(device) == nvml.nvmlDeviceIsMigDeviceHandle(device).value == 0
    assert nvml.nvmlDeviceGetComputeMode(device) == nvml.NVML_COMPUTEMODE_DEFAULT
    assert nvml.nvmlDeviceGetPersistenceMode(device) == 1
    assert nvml.nvmlDeviceGetDisplayMode(device) == nvml.nvmlDeviceGetDisplayActive(device) == 0
    assert nvml.nvmlDeviceGetTemperatureThreshold(device, nvml.NVML_TEMPERATURE_THRESHOLD_SHUTDOWN) == 98
    assert nvml.nvmlDeviceGetBAR1MemoryInfo(device).bar1Total == GIB // 4


def test_a_card_is_found_by_its_names(device: object) -> None:
    uuid = nvml.nvmlDeviceGetUUID(device)
    assert uuid.startswith("GPU-")
    assert len(uuid) == 40
    bus = nvml.nvmlDeviceGetPciInfo(device)
    assert (bus.domain, bus.bus, bus.device) == (0, 1, 0)
    assert (bus.busId, bus.busIdLegacy) == ("00000000:01:00.0", "0000:01:00.0")
    for find, text in (
        (nvml.nvmlDeviceGetHandleByUUID, uuid),
        (nvml.nvmlDeviceGetHandleByPciBusId, bus.busId),
        (nvml.nvmlDeviceGetHandleByPciBusId, bus.busIdLegacy),
    ):
        assert nvml.nvmlDeviceGetIndex(find(text)) == 0
        with pytest.raises(nvml.NVMLError_NotFound):
            find(text + "0")
    with pytest.raises(nvml.NVMLError_InvalidArgument):
        nvml.nvmlDeviceGetHandleByIndex(1)


def test_the_driver_says_that_it_is_simulated(device: object) -> None:
    for version in (nvml.nvmlSystemGetDriverVersion(), nvml.nvmlSystemGetNVMLVersion()):
        assert "simulated" in version
        assert version.split(".")[0].isdigit()
    assert nvml.nvmlSystemGetCudaDriverVersion() == 0
    assert nvml.nvmlSystemGetProcessName(os.getpid())
    with pytest.raises(nvml.NVMLError_NotFound):
        nvml.nvmlSystemGetProcessName(4_000_000_000)


def test_processes_and_their_memory(card: World, device: object) -> None:
    with Neighbour(card.name) as one, Neighbour(card.name) as two:
        assert one.ask("reserve", 2 * GIB)
        assert two.ask("reserve", 3 * GIB)
        for version in (nvml.nvmlDeviceGetComputeRunningProcesses_v2, nvml.nvmlDeviceGetComputeRunningProcesses_v3):
            assert {p.pid: p.usedGpuMemory for p in version(device)} == {one.pid: 2 * GIB, two.pid: 3 * GIB}
        assert nvml.nvmlDeviceGetGraphicsRunningProcesses(device) == []
        assert nvml.nvmlDeviceGetMPSComputeRunningProcesses(device) == []
        card.squeeze("1GiB")
        for version in (None, nvml.nvmlMemory_v2):
            memory = nvml.nvmlDeviceGetMemoryInfo(device, version)
            assert (memory.total, memory.free, memory.used) == (12 * GIB, 6 * GIB, 6 * GIB)
        two.kill()
        assert [p.pid for p in nvml.nvmlDeviceGetComputeRunningProcesses(device)] == [one.pid]
        assert nvml.nvmlDeviceGetMemoryInfo(device).free == 9 * GIB


def test_lists_of_processes_without_a_version_have_the_short_entries(card: World, device: object) -> None:
    short = ctypes.c_ulonglong * 4  # two entries of a PID, its padding and the bytes
    ask = nvml.nvmlLib.nvmlDeviceGetComputeRunningProcesses
    with Neighbour(card.name) as one, Neighbour(card.name) as two:
        one.ask("reserve", 1)
        two.ask("reserve", 2)
        count, room = ctypes.c_uint(1), short()
        assert ask(device, ctypes.byref(count), room) == nvml.NVML_ERROR_INSUFFICIENT_SIZE
        assert count.value == 2
        assert ask(device, ctypes.byref(count), room) == nvml.NVML_SUCCESS
        assert {room[0] & 0xFFFFFFFF: room[1], room[2] & 0xFFFFFFFF: room[3]} == {one.pid: 1, two.pid: 2}


def test_the_link_as_it_is_and_as_it_could_be(card: World, device: object) -> None:
    card.link("pcie3x8")
    assert nvml.nvmlDeviceGetCurrPcieLinkGeneration(device) == 3
    assert nvml.nvmlDeviceGetCurrPcieLinkWidth(device) == 8
    assert nvml.nvmlDeviceGetMaxPcieLinkGeneration(device) == 4
    assert nvml.nvmlDeviceGetMaxPcieLinkWidth(device) == 16
    card.link("reset")
    assert nvml.nvmlDeviceGetCurrPcieLinkWidth(device) == 16


def test_the_load_is_what_grew_since_the_last_ask(card: World, device: object) -> None:
    def load() -> tuple[int, int]:
        rates = nvml.nvmlDeviceGetUtilizationRates(device)
        return rates.gpu, rates.memory

    with Neighbour(card.name) as one, Neighbour(card.name) as two:
        one.ask("report", 500, 100, 1000)
        assert load() == (50, 10)
        assert load() == (0, 0)  # no clock moved
        one.ask("report", 1500, 100, 2000)
        assert load() == (100, 0)
        one.ask("report", 2500, 100, 3000)
        two.ask("report", 0, 1000, 1000)
        assert load() == (50, 50)


def test_heat_and_power_follow_the_load_each_for_itself(card: World, device: object) -> None:
    def state() -> tuple[int, int, int]:
        heat = nvml.nvmlDeviceGetTemperature(device, nvml.NVML_TEMPERATURE_GPU)
        return heat, nvml.nvmlDeviceGetPowerUsage(device), nvml.nvmlDeviceGetPerformanceState(device)

    assert state() == (35, 17_000, 8)
    with Neighbour(card.name) as one:
        one.ask("report", 1000, 0, 1000)
        assert state() == (80, 161_500, 0)
        assert nvml.nvmlDeviceGetTemperatureV(device, nvml.NVML_TEMPERATURE_GPU) == 35


def test_waiting_for_events_takes_its_time(device: object) -> None:
    assert nvml.nvmlDeviceGetSupportedEventTypes(device) == 0
    events = nvml.nvmlEventSetCreate()
    nvml.nvmlDeviceRegisterEvents(device, 0, events)
    with pytest.raises(nvml.NVMLError_NotSupported):
        nvml.nvmlDeviceRegisterEvents(device, nvml.nvmlEventTypeXidCriticalError, events)
    begin = time.monotonic()
    with pytest.raises(nvml.NVMLError_Timeout):
        nvml.nvmlEventSetWait(events, 30)
    assert time.monotonic() - begin >= 0.03
    nvml.nvmlEventSetFree(events)
    with pytest.raises(nvml.NVMLError_InvalidArgument):
        nvml.nvmlEventSetFree(events)


def test_what_would_be_an_invented_figure_is_not_supported(device: object) -> None:
    assert lacking(nvml.nvmlDeviceGetFanSpeed, device)
    assert lacking(nvml.nvmlDeviceGetClockInfo, device, nvml.NVML_CLOCK_SM)
    assert lacking(nvml.nvmlDeviceGetMaxClockInfo, device, nvml.NVML_CLOCK_MEM)
    assert lacking(nvml.nvmlDeviceGetEccMode, device)
    assert lacking(nvml.nvmlDeviceGetPcieThroughput, device, nvml.NVML_PCIE_UTIL_TX_BYTES)
    assert lacking(nvml.nvmlDeviceGetTotalEnergyConsumption, device)
    assert lacking(nvml.nvmlDeviceGetSerial, device)
    assert lacking(nvml.nvmlDeviceGetVbiosVersion, device)
    assert lacking(nvml.nvmlDeviceGetEncoderUtilization, device)


def test_starts_are_counted_and_nothing_answers_before_or_after(card: World) -> None:
    with pytest.raises(nvml.NVMLError_Uninitialized):
        nvml.nvmlDeviceGetCount()
    with pytest.raises(nvml.NVMLError_Uninitialized):
        nvml.nvmlShutdown()
    nvml.nvmlInit()
    nvml.nvmlInitWithFlags(0)
    nvml.nvmlShutdown()
    device = nvml.nvmlDeviceGetHandleByIndex(0)
    nvml.nvmlShutdown()
    with pytest.raises(nvml.NVMLError_Uninitialized):
        nvml.nvmlDeviceGetMemoryInfo(device)


def test_wrong_arguments(device: object) -> None:
    lib = nvml.nvmlLib
    assert lib.nvmlDeviceGetMemoryInfo(device, None) == nvml.NVML_ERROR_INVALID_ARGUMENT
    assert lib.nvmlDeviceGetMemoryInfo(None, ctypes.create_string_buffer(64)) == nvml.NVML_ERROR_INVALID_ARGUMENT
    assert lib.nvmlDeviceGetName(device, None, 64) == nvml.NVML_ERROR_INVALID_ARGUMENT
    assert lib.nvmlDeviceGetName(device, ctypes.create_string_buffer(5), 5) == nvml.NVML_ERROR_INSUFFICIENT_SIZE
    assert lib.nvmlDeviceGetUUID(device, ctypes.create_string_buffer(40), 40) == nvml.NVML_ERROR_INSUFFICIENT_SIZE
    assert lib.nvmlDeviceGetHandleByUUID(None, None) == nvml.NVML_ERROR_INVALID_ARGUMENT
    with pytest.raises(nvml.NVMLError_ArgumentVersionMismatch):
        nvml.nvmlDeviceGetMemoryInfo(device, 1)


def test_the_environment_says_which_card(card: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIMGPU_PROFILE", "t4")
    monkeypatch.setenv("SIMGPU_CAPACITY", "6GiB")
    nvml.nvmlInit()
    device = nvml.nvmlDeviceGetHandleByIndex(0)
    assert nvml.nvmlDeviceGetName(device) == "Simulated NVIDIA Tesla T4"
    assert nvml.nvmlDeviceGetMemoryInfo(device).total == 6 * GIB
    with Neighbour(card.name, profile="rtx3090", SIMGPU_CAPACITY=""):  # whoever uses it says more than the environment
        assert nvml.nvmlDeviceGetMemoryInfo(device).total == 24 * GIB
    assert nvml.nvmlDeviceGetMemoryInfo(device).total == 6 * GIB
    nvml.nvmlShutdown()


def test_a_profile_of_ones_own_is_seen_once_somebody_uses_it(card: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIMGPU_PROFILE", "/somewhere/mine.json")
    nvml.nvmlInit()
    assert nvml.nvmlDeviceGetCount() == 0
    with pytest.raises(nvml.NVMLError_InvalidArgument):
        nvml.nvmlDeviceGetHandleByIndex(0)
    with Neighbour(card.name, SIMGPU_PROFILE=""):
        assert nvml.nvmlDeviceGetCount() == 1
        device = nvml.nvmlDeviceGetHandleByIndex(0)
    with pytest.raises(nvml.NVMLError_GpuIsLost):
        nvml.nvmlDeviceGetName(device)
    nvml.nvmlShutdown()


@pytest.mark.parametrize(
    ("variables", "why"),
    [
        ({"SIMGPU_PROFILE": "rtx9999"}, 'no profile "rtx9999"; known are'),
        ({"SIMGPU_CAPACITY": "much"}, 'SIMGPU_CAPACITY="much" is not a size'),
        ({"SIMGPU_CARD": "a/b"}, "cannot be a card's name"),
    ],
)
def test_a_start_that_fails_says_why(variables: dict[str, str], why: str) -> None:
    code = f"import ctypes; print(ctypes.CDLL({library()!r}).nvmlInit_v2())"
    ended = subprocess.run(
        [sys.executable, "-S", "-c", code], env={**os.environ, **variables}, capture_output=True, text=True, check=True
    )
    assert int(ended.stdout) == nvml.NVML_ERROR_UNKNOWN
    assert why in ended.stderr


def test_a_reader_finds_the_library_as_it_finds_a_drivers(card: World) -> None:
    code = "import pynvml as n; n.nvmlInit(); print(n.nvmlDeviceGetName(n.nvmlDeviceGetHandleByIndex(0)))"
    folder = os.path.dirname(library())
    variables = {**os.environ, "LD_LIBRARY_PATH": folder}
    ended = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=False)
    assert ended.stdout.strip() == "Simulated NVIDIA GeForce RTX 3060", ended.stderr
