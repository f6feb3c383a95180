"""A real comparison that needs no download: digits in clutter and a small DeiT that reads them."""
