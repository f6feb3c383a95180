"""Measurements of a single model: compute, time, memory, accuracy and redundancy."""
