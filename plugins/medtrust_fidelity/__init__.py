"""Fidelity and diversity: do the synthetic images look like the training images, and like all of them?"""
