"""What a setting for the device stands for, and what is recorded of it."""

import json
from collections.abc import Iterator

import pytest
import torch
from stub_nvml import NotSupportedError, StubNvml, install

from tokbench.errors import UserError
from tokbench.measure.devices import device_index, device_name, resolve_device
from tokbench.measure.environment import convolutions_in_tf32, describe, device_facts, matmul_precision

GPU = torch.device("cuda", 0)


@pytest.fixture
def current(monkeypatch: pytest.MonkeyPatch) -> list[torch.device]:
    """Two devices of CUDA, one of XPU, and MPS; gives those that were made torch's current ones."""
    chosen: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for module, count in ((torch.cuda, 2), (torch.xpu, 1), (torch.mps, 1)):
        monkeypatch.setattr(module, "device_count", lambda count=count: count)
    for module in (torch.cuda, torch.xpu):
        monkeypatch.setattr(module, "set_device", chosen.append)
        monkeypatch.setattr(module, "current_device", lambda: 0)
    return chosen


@pytest.mark.parametrize("name", ["cpu", "cuda", "xpu", "mps"])
def test_a_name_without_a_number_leaves_the_current_device(name: str, current: list[torch.device]) -> None:
    assert resolve_device(name) == torch.device(name)
    assert current == []


@pytest.mark.parametrize("name", ["cuda:0", "cuda:1", "xpu:0"])
def test_a_numbered_device_becomes_the_current_one(name: str, current: list[torch.device]) -> None:
    """On it torch makes streams, events and graphs."""
    assert resolve_device(name) == torch.device(name)
    assert current == [torch.device(name)]


def test_auto_is_cuda_and_nothing_untested(current: list[torch.device], monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_device("auto") == torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # the GPU is there, its driver is too old
    assert resolve_device("auto") == torch.device("cpu")


@pytest.mark.usefixtures("current")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cuda:3", "'cuda:3' is not available (this machine has cuda:0, cuda:1): use --device cuda:0"),
        ("xpu:1", "'xpu:1' is not available (this machine has xpu:0): use --device xpu:0"),
        ("mps:0", "unknown device 'mps:0': expected auto, cpu, cuda, cuda:N, mps, xpu or xpu:N"),
        ("cpu:1", "unknown device 'cpu:1'"),
        ("meta", "unknown device 'meta'"),
        ("toaster", "unknown device 'toaster'"),
    ],
)
def test_a_message_names_the_devices_that_are_there(name: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        resolve_device(name)
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "xpu", "mps"])
def test_a_device_that_torch_cannot_use_here_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a torch that is built without it."""
    for module in (torch.cuda, torch.xpu, torch.mps):
        monkeypatch.setattr(module, "device_count", lambda: 0)
    kind = name.partition(":")[0].upper()
    with pytest.raises(UserError, match=rf"no {kind} device\): use --device cpu"):
        resolve_device(name)


@pytest.mark.usefixtures("current")
def test_names_and_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.xpu, "get_device_name", lambda device: "Intel GPU")
    assert device_name(torch.device("xpu")) == "Intel GPU"
    assert device_name(torch.device("mps")).endswith("(GPU)")
    indices = [device_index(torch.device(name)) for name in ("cpu", "mps", "cuda", "cuda:1")]
    assert indices == [None, None, 0, 1]


def test_the_cpu_is_described_without_a_gpu() -> None:
    found = describe(torch.device("cpu"))
    assert (found["device"], found["device_index"], found["gpu"], found["cuda"]) == ("cpu", None, None, None)
    assert found["torch_build"] == torch.__version__
    json.dumps(found)


@pytest.mark.usefixtures("current")
def test_a_gpu_is_described_with_what_times_depend_on(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, StubNvml())
    found = describe(GPU)
    json.dumps(found)
    assert (found["device_name"], found["device_index"], found["clock_mhz"]) == ("Simulated GPU", 0, 1410)
    expected = {"driver": "580.65.06", "multiprocessors": 108, "power_limit_w": 400.0, "mig": False, "hip": None}
    assert found["gpu"].items() >= expected.items()
    facts = device_facts(GPU)
    assert facts.items() >= {"name": "Simulated GPU", "driver": "580.65.06", "power_limit_w": "400.0"}.items()
    assert facts["torch"] == torch.__version__
    assert "hip" not in facts


@pytest.mark.usefixtures("current")
def test_facts_for_keys_do_not_change_while_a_gpu_works(monkeypatch: pytest.MonkeyPatch) -> None:
    stub = install(monkeypatch, StubNvml())
    before = device_facts(GPU)
    changing = ("ClockInfo", "Temperature", "PowerUsage", "ThrottleReasons", "RunningProcesses", "MemoryInfo", "Energy")
    assert not [name for name, _ in stub.asked if name.endswith(changing)]
    assert device_facts(GPU) == before


@pytest.mark.usefixtures("current")
def test_a_gpu_without_nvml_is_described_as_far_as_torch_knows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, StubNvml(fails={"nvmlInit": NotSupportedError("no")}))
    found = describe(GPU)
    assert (found["clock_mhz"], found["gpu"]["power_limit_w"], found["gpu"]["multiprocessors"]) == (None, None, 108)
    assert "power_limit_w" not in device_facts(GPU)


@pytest.mark.usefixtures("current")
def test_rocm_is_described_by_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, StubNvml())
    monkeypatch.setattr(torch.version, "hip", "7.0.51831")
    monkeypatch.setattr(torch.version, "cuda", None)
    facts = device_facts(GPU)
    assert facts["hip"] == "7.0.51831"
    assert not {"cuda", "driver", "power_limit_w"} & set(facts)


@pytest.fixture
def precision_is_put_back() -> Iterator[None]:
    """The settings of precision after a test that changed them by torch's newer way."""
    places = [torch.backends.cuda.matmul, torch.backends.cudnn.conv]  # type: ignore[attr-defined]
    before = [place.fp32_precision for place in places]
    yield
    for place, precision in zip(places, before, strict=True):
        place.fp32_precision = precision
    torch.set_float32_matmul_precision("highest")


@pytest.mark.usefixtures("precision_is_put_back")
@pytest.mark.skipif(not hasattr(torch.backends.cuda.matmul, "fp32_precision"), reason="this torch has one way only")
def test_precision_is_told_whichever_way_it_was_set() -> None:
    assert matmul_precision() == "highest"
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    with pytest.raises(RuntimeError, match="mix of the legacy and new"):
        torch.get_float32_matmul_precision()
    assert matmul_precision() == "tf32"
    torch.backends.cudnn.conv.fp32_precision = "tf32"
    assert convolutions_in_tf32()
    assert describe(torch.device("cpu"))["tf32"] == {"matmul": "tf32", "cudnn": True}


@pytest.mark.skipif(not hasattr(torch._C, "_CudaDeviceProperties"), reason="a torch without CUDA")
def test_the_properties_of_the_stand_in_are_torchs() -> None:
    for name in ("uuid", "name", "total_memory", "multi_processor_count", "major", "minor"):
        assert hasattr(torch._C._CudaDeviceProperties, name)
