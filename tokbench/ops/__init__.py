"""Operators on token vectors that several methods share."""
