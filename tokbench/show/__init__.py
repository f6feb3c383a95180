"""Token maps: which image patches became which token, followed through a model and drawn."""
