"""Training models with methods in them, all with the same recipe."""
