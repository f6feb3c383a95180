"""Models and methods whose weights were trained together: what is known of them, and the files they are in."""
