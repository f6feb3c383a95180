"""The vision transformer in which a method acts, and the information that its blocks provide to the method."""
