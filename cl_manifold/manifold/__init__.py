"""Weights as a smooth function of context: how they are laid out, held, moved, run and saved."""
