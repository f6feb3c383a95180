"""What NVML does not tell is left out, and never costs a measurement."""

import sys
from dataclasses import asdict

import pytest
import torch
from stub_nvml import ANSWERS, LibraryNotFoundError, NotSupportedError, NVMLError, StubNvml, install

from tokbench.kinds.samples import GpuCondition
from tokbench.measure.energy_meter import NoMeterError, meter_of
from tokbench.measure.gpu import Condition, Limits, condition, free_memory, limits, other_processes
from tokbench.measure.nvml import NvmlError, driver_version, open_nvml

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)

WHOLE = Condition(1410, 1593, 45, ("power cap", "software thermal slowdown"), 251.3)

# By NVML's function: the fields that are empty where it fails.
FIELDS = {
    "nvmlDeviceGetClockInfo": {"sm_mhz": None, "memory_mhz": None},
    "nvmlDeviceGetTemperature": {"temperature_c": None},
    "nvmlDeviceGetCurrentClocksThrottleReasons": {"throttled": ()},
    "nvmlDeviceGetPowerUsage": {"power_w": None},
}
LIMITS = {
    "nvmlDeviceGetEnforcedPowerLimit": {"power_limit_w": None},
    "nvmlDeviceGetPersistenceMode": {"persistence": None},
    "nvmlDeviceGetMigMode": {"mig": None},
}


def test_everything_is_reported_in_plain_units(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, StubNvml())
    assert condition(GPU) == WHOLE
    assert limits(GPU) == Limits(400.0, True, False)
    assert other_processes(GPU) == 1
    assert free_memory(GPU) == 3 * 2**30
    assert driver_version() == "580.65.06"
    meter = meter_of(GPU)
    assert (meter.name, meter.read()) == ("NVML", 5.25)


@pytest.mark.parametrize("missing", ["fails", "lacks"])
@pytest.mark.parametrize("function", [*FIELDS, *LIMITS])
def test_a_function_that_fails_costs_its_own_fields_only(
    function: str, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub = StubNvml(fails={function: NotSupportedError("Not Supported")})
    install(monkeypatch, stub if missing == "fails" else StubNvml(lacks={function}))
    expected = asdict(WHOLE) | FIELDS.get(function, {})
    found = condition(GPU)
    assert found is not None
    assert asdict(found) == expected
    settings = limits(GPU)
    assert settings is not None
    assert asdict(settings) == {"power_limit_w": 400.0, "persistence": True, "mig": False} | LIMITS.get(function, {})


def test_a_gpu_that_supports_nothing_leaves_all_fields_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"nvmlInit"}
    install(monkeypatch, StubNvml(fails={name: NotSupportedError("no") for name in ANSWERS if name not in known}))
    assert condition(GPU) == Condition(None, None, None, (), None)
    assert limits(GPU) == Limits(None, None, None)
    assert other_processes(GPU) is free_memory(GPU) is None
    with pytest.raises(NoMeterError, match="does not count its energy"):
        meter_of(GPU)


def test_a_record_of_a_condition_can_lack_any_field() -> None:
    empty = Condition(None, None, None, (), None)
    assert asdict(GpuCondition(**asdict(empty))) == asdict(empty)


@pytest.mark.parametrize(
    "error", [LibraryNotFoundError("NVML Shared Library Not Found"), NVMLError("Driver Not Loaded")]
)
def test_a_library_that_cannot_be_used_leaves_everything_out(error: NVMLError, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, StubNvml(fails={"nvmlInit": error}))
    assert condition(GPU) is limits(GPU) is other_processes(GPU) is free_memory(GPU) is None
    with pytest.raises(NoMeterError, match=str(error)):
        meter_of(GPU)


def test_nvidias_own_package_without_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """The copy in Ray is NVIDIA's code: its errors are what a machine without the library gives."""
    copy = pytest.importorskip("ray._private.thirdparty.pynvml.pynvml")
    try:
        copy.nvmlInit()
    except copy.NVMLError:
        pass
    else:
        pytest.skip("this machine has NVML")
    monkeypatch.setitem(sys.modules, "pynvml", copy)
    assert condition(GPU) is None
    with pytest.raises(NvmlError, match="NVML cannot be used: NVML Shared Library Not Found"):
        open_nvml(GPU)


def test_the_functions_that_are_asked_for_exist_in_nvidias_package() -> None:
    copy = pytest.importorskip("ray._private.thirdparty.pynvml.pynvml")
    for name in (*ANSWERS, "nvmlDeviceGetHandleByUUID", "nvmlDeviceGetDeviceHandleFromMigDeviceHandle"):
        assert callable(getattr(copy, name))
    stub = StubNvml()
    for name in ("NVML_CLOCK_SM", "NVML_CLOCK_MEM", "NVML_TEMPERATURE_GPU"):
        assert getattr(copy, name) == getattr(stub, name)
    assert issubclass(copy.NVMLError_NotSupported, copy.NVMLError)


def test_without_the_package_the_reason_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert condition(GPU) is None
    with pytest.raises(NoMeterError, match=r"pip install 'tokbench\[nvidia\]'"):
        meter_of(GPU)


def test_of_a_part_of_a_gpu_the_whole_one_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    stub = install(monkeypatch, StubNvml(mig=True))
    assert condition(GPU) == WHOLE
    assert dict(stub.asked)["nvmlDeviceGetClockInfo"] == "gpu"
    assert other_processes(GPU) == 1
    assert dict(stub.asked)["nvmlDeviceGetComputeRunningProcesses"] == "part"
    with pytest.raises(NoMeterError, match=r"a part of a GPU \(MIG\) has no energy counter of its own"):
        meter_of(GPU)


def test_a_gpu_that_nvml_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, StubNvml())
    other = "ffffffff-0000-0000-0000-000000000000"
    monkeypatch.setattr(torch.cuda.get_device_properties(GPU), "uuid", other)
    assert condition(GPU) is None
    with pytest.raises(NvmlError, match=other):
        open_nvml(GPU)


def test_a_process_that_nvml_does_not_list_sees_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, StubNvml())
    monkeypatch.setitem(ANSWERS, "nvmlDeviceGetComputeRunningProcesses", [])
    assert other_processes(GPU) is None


@pytest.mark.parametrize("device", ["cpu", "mps", "xpu"])
def test_other_devices_are_not_asked_for(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stub = install(monkeypatch, StubNvml())
    assert condition(torch.device(device)) is limits(torch.device(device)) is None
    assert stub.asked == []


def test_rocm_is_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    stub = install(monkeypatch, StubNvml())
    monkeypatch.setattr(torch.version, "hip", "7.0")
    assert condition(GPU) is None
    assert stub.asked == []
    with pytest.raises(NoMeterError, match="no energy counter of ROCm"):
        meter_of(GPU)
