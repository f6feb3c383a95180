"""Records of times: samples taken in pairs, and the conditions they were taken under."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class GpuCondition:
    """Clocks, temperature, power and throttling of a GPU at one moment; see `measure.gpu.Condition`."""

    sm_mhz: int | None = None
    memory_mhz: int | None = None
    temperature_c: int | None = None
    throttled: tuple[str, ...] = ()
    power_w: float | None = None


@dataclass(frozen=True)
class Samples:
    """Paired times, seconds per batch.

    Attributes:
        base_s: The plain model's, one per round.
        other_s: The other model's in the same rounds.
        half_width: The precision reached: half the width of the 95 % interval of the ratio, relative to it.
        other_load: Share of all CPUs that other processes used, 0 to 1.
        host_s: Median seconds in which the host queued a call of the plain model and of the other; empty on a CPU.
    """

    base_s: tuple[float, ...]
    other_s: tuple[float, ...]
    half_width: float
    other_load: float
    host_s: tuple[float, ...] = ()


@dataclass(frozen=True)
class LatencyRecord(Samples):
    """Paired times of one row.

    Attributes:
        session: Names the noise record of the same session.
        gpu: The GPU after the timed rounds, while it runs the plain model and then the other; empty on a CPU.
        choosing: The share of the time that choosing tokens took in runs after the timed ones, 0 to 1; empty without a
            method, and in other modes than eager.
        attention: The kernels of fused attention that the model ran; empty where none did, and in other modes than
            eager.
        alone_s: Median seconds of the plain model and of the other while each ran alone; only where a power cap was
            seen.
        same_top1: The share of the batch to which a runtime gives the answer of the eager model; None in other modes.
        difference: The largest difference of a logit between the two; None in other modes.
    """

    session: str = ""
    gpu: tuple[GpuCondition, ...] = ()
    choosing: tuple[float, ...] = ()
    attention: tuple[str, ...] = ()
    alone_s: tuple[float, ...] = ()
    same_top1: float | None = None
    difference: float | None = None


@dataclass(frozen=True)
class NoiseRecord:
    """The plain model against itself in one session, several times."""

    blocks: tuple[Samples, ...]
