"""Generators that medtrust can train: a rectified flow and a variational autoencoder."""
