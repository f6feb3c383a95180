"""Regression checks: what became worse between two results, or between two versions of a method."""
