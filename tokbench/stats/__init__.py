"""Statistics of times and proportions, as pure functions."""
