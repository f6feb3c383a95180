"""The order of work: plan, run, table."""
