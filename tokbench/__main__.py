"""`python -m tokbench`."""

from tokbench.cli import main

# Guarded, for a process that measures memory imports this file again.
if __name__ == "__main__":
    main()
