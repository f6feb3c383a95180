"""A results directory: the plan, the records, and the tables made from them."""
