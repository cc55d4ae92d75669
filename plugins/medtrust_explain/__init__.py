"""Explanations: what gives synthetic images away, where, and whether the explanation itself can be trusted."""
