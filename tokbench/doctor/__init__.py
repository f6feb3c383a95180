"""What this machine is, how noisy it is, and what is missing."""
