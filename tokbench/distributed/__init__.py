"""Running a comparison on several machines."""
