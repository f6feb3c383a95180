"""A results directory as one HTML page."""
