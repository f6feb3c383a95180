"""Tables in, pictures out."""
