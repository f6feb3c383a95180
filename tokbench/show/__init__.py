"""Pictures of which image patches became which token."""
