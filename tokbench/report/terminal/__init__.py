"""Tables and the live view for the terminal."""
