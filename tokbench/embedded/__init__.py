"""The embedded suite, which needs no download: images of digits in clutter, and a small DeiT that classifies them."""
