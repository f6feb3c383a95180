"""The vision transformer that a method is put into, and what a block can tell the method."""
