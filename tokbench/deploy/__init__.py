"""Models exported for deployment, and the runtimes that run them."""
