"""The parts, the most valuable first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gpu.part import FOLDER, Part

ROOT = Path(__file__).parents[2]

TINY, SMALL, BASE = (f"deit_{size}_patch16_224" for size in ("tiny", "small", "base"))
DIGITS = "digits_deit"

# The families of the first paper on token pooling, and the methods that kept most top-1 at equal compute in
# results/photographs, with ToMe and EViT, which others compare with.
FAMILIES = (
    "token_pooling",
    "token_pooling(algorithm=kmeans)",
    "score_pruning",
    "importance_sampling",
    "grid_pooling",
    "random_selection",
)
BEST = ("dpc_knn", "atc", "mctf", "diffrate", "tome", "evit")
FEW = ("token_pooling", "score_pruning", "grid_pooling", "random_selection", "tome", "evit")  # where each is compiled


@dataclass(frozen=True)
class Scale:
    """How much is measured.

    Attributes:
        suite: The suite whose other settings apply.
        device: Where: `cuda`, `cuda:N` or `cpu`.
        dtype: The models' precision.
        batch_sizes: Images a batch, the largest last.
        seconds: Time limit of each row.
    """

    suite: str
    device: str
    dtype: str
    batch_sizes: tuple[int, ...]
    seconds: float

    def compare(
        self,
        name: str,
        about: str,
        estimate: float,
        model: str,
        kinds: str = "latency",
        *,
        modes: str = "eager",
        methods: Sequence[str] = (*FAMILIES, *BEST),
        keeps: str = "0.7,0.5",
        batch_sizes: Sequence[int] = (),
        gpus: int = 0,
    ) -> Part:
        """A part that is a comparison; run again, it measures only what is missing."""
        options = {
            "only": kinds,
            "models": model,
            "methods": ",".join(methods),
            "keep": keeps,
            "batch-size": ",".join(map(str, batch_sizes or self.batch_sizes)),
            "mode": modes,
            "device": self.device,
            "dtype": self.dtype,
            "seconds": f"{self.seconds:g}",
            "seeds": "0",
            "baselines": "none",
            "out": FOLDER,
        }
        words = [word for option, value in options.items() for word in (f"--{option}", value)]
        return Part(name, about, ("-m", "tokbench", "compare", self.suite, *words), estimate, gpus=gpus)


def parts_of(device: str) -> tuple[Part, ...]:
    """The parts for a device, `cpu`, `cuda` or `cuda:N`, the most valuable first."""
    return _on_cpu() if device == "cpu" else _on_cuda(device)


def _on_cuda(device: str) -> tuple[Part, ...]:
    scale = Scale("latency", device, "bf16", (1, 256), 0.5)
    compare, largest = scale.compare, scale.batch_sizes[-1:]
    return (
        _tests(),
        _kernel(device),
        _precision(device, f"{TINY},{DIGITS}", 60),
        compare("latency-small", "DeiT-S, eager", 100, SMALL, "macs,latency"),
        compare("latency-small-cudagraph", "DeiT-S as a CUDA graph", 80, SMALL, modes="cudagraph"),
        compare(
            "throughput", "DeiT-S: images a second of queued batches", 80, SMALL, "throughput",
            methods=FEW, batch_sizes=largest,
        ),
        compare(
            "energy", "DeiT-S: joules an image", 80, SMALL, "energy", methods=FEW, keeps="0.7", batch_sizes=largest
        ),
        compare(
            "latency-small-compile", "DeiT-S compiled", 180, SMALL,
            modes="compile", methods=FEW, keeps="0.7", batch_sizes=largest,
        ),
        compare(
            "memory", "DeiT-S: peak memory eager, compiled and as a CUDA graph", 150, SMALL, "memory",
            modes="eager,compile,cudagraph", methods=("tome", "token_pooling"), keeps="0.7", batch_sizes=largest,
        ),
        compare("latency-base", "DeiT-B, eager", 80, BASE, "macs,latency"),
        compare("latency-tiny", "DeiT-Ti, eager", 80, TINY, "macs,latency"),
        compare(
            "latency-small-both", "DeiT-S compiled, as a CUDA graph", 180, SMALL,
            modes="compile+cudagraph", methods=FEW, keeps="0.7", batch_sizes=scale.batch_sizes[:1],
        ),
        _kmeans(device),
        _two_gpus(),
        compare(
            "sweep", "DeiT-S, every method", 180, SMALL, "macs,latency",
            methods=("none(attention=eager)", "all"), keeps="0.9,0.7,0.5", batch_sizes=largest,
        ),
        compare("latency-base-cudagraph", "DeiT-B as a CUDA graph", 80, BASE, modes="cudagraph"),
        compare("latency-tiny-cudagraph", "DeiT-Ti as a CUDA graph", 80, TINY, modes="cudagraph"),
        compare(
            "latency-base-compile", "DeiT-B compiled", 180, BASE,
            modes="compile", methods=FEW, keeps="0.7", batch_sizes=largest,
        ),
        compare(
            "latency-tiny-compile", "DeiT-Ti compiled", 180, TINY,
            modes="compile", methods=FEW, keeps="0.7", batch_sizes=largest,
        ),
    )  # fmt: skip


def _on_cpu() -> tuple[Part, ...]:
    """The same on a small scale, to try the program out."""
    scale = Scale("embedded", "cpu", "fp32", (1, 8), 0.1)
    compare, largest, one = scale.compare, scale.batch_sizes[-1:], ("tome",)
    every = ("all",)
    return (
        _tests(),
        _kernel("cuda"),
        _precision("cpu", DIGITS, 25),
        compare("latency", "the digits' DeiT, eager", 25, DIGITS, "macs,latency", methods=FEW, keeps="0.7"),
        compare(
            "throughput", "images a second of queued batches", 20, DIGITS, "throughput",
            methods=one, keeps="0.7", batch_sizes=largest,
        ),
        compare("energy", "joules an image", 20, DIGITS, "energy", methods=one, keeps="0.7", batch_sizes=largest),
        compare("memory", "peak memory", 25, DIGITS, "memory", methods=one, keeps="0.7", batch_sizes=largest),
        compare("latency-cudagraph", "as a CUDA graph", 30, DIGITS, modes="cudagraph", methods=one, gpus=1),
        _kmeans("cpu"),
        _two_gpus(),
        compare("sweep", "every method", 50, DIGITS, "macs,latency", methods=every, keeps="0.5", batch_sizes=largest),
    )  # fmt: skip


def _tests() -> Part:
    """The tests that need a GPU, which are few: only their files are collected."""
    files = sorted(file for file in (ROOT / "tests").rglob("test_*.py") if "mark.cuda" in file.read_text("utf-8"))
    names = [str(file.relative_to(ROOT)) for file in files]
    options = (
        "-m",
        "cuda",
        "-o",
        "addopts=",
        "-p",
        "no:cacheprovider",
        "--continue-on-collection-errors",
        "-q",
        "-rfEs",
    )
    return Part("tests", "the tests marked cuda", ("-m", "pytest", *options, *names), 60, ("pytest",), 1)


def _kernel(device: str) -> Part:
    command = ("benchmarks/gpu/kernel.py", device)
    return Part("kernel", "the Triton kernel against float64, and its speed", command, 90, ("triton",), 1)


def _precision(device: str, models: str, seconds: float) -> Part:
    command = ("benchmarks/gpu/precision.py", device, models, f"{FOLDER}/precision.csv")
    return Part("precision", "answers in each dtype against the CPU's in fp32", command, seconds)


def _kmeans(device: str) -> Part:
    return Part("kmeans", "K-Means against flash-kmeans", ("benchmarks/gpu/kmeans.py", device), 20, ("flash_kmeans",))


def _two_gpus() -> Part:
    command = ("benchmarks/gpu/two_gpus.py",)
    return Part("two-gpus", "the second GPU against the first: answers and times", command, 20, gpus=2)
