"""Published numbers, and where a measured row can be compared with one."""
