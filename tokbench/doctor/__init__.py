"""Checks of this machine: hardware, software, folders, data and timing resolution."""
