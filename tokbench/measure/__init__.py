"""How one thing is measured: compute, time, accuracy."""
