"""The methods included in tokbench, one file each."""
