"""Makes the package `benchmarks/gpu` importable without its neighbours, one of which is called like a library."""

import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

if "gpu" not in sys.modules:
    spec = importlib.util.spec_from_file_location("gpu", ROOT / "benchmarks/gpu/__init__.py")
    assert spec is not None
    sys.modules["gpu"] = importlib.util.module_from_spec(spec)
