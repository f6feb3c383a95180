"""Labelled image sets: opening, decoding, preprocessing, batching and caching."""
