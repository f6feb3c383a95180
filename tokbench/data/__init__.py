"""Image sets: folders, archives and the embedded digits."""
