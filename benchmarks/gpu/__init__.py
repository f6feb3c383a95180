"""The parts of `benchmarks/on_gpu.py`: what is measured, how it is run, and the report."""
