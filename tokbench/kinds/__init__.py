"""The kinds of measurement, in the order in which a run measures them.

A new kind is a file in this folder and an entry in `KINDS`.
"""

from typing import Any

from tokbench.kinds.accuracy import ACCURACY
from tokbench.kinds.agreement import AGREEMENT
from tokbench.kinds.base import Kind
from tokbench.kinds.energy import Energy
from tokbench.kinds.knn import Knn
from tokbench.kinds.latency import LATENCY
from tokbench.kinds.macs import Macs
from tokbench.kinds.memory import Memory
from tokbench.kinds.redundancy import RECONSTRUCTION, SPECTRA
from tokbench.kinds.throughput import Throughput
from tokbench.kinds.training import Training

KINDS: dict[str, Kind[Any]] = {
    kind.name: kind
    for kind in (
        *(Macs(), SPECTRA, RECONSTRUCTION, LATENCY, Throughput(), Memory(), Training(), Energy()),
        *(Knn(), ACCURACY, AGREEMENT),
    )
}
