"""Metrics of a peer for medtrust; an optional distribution of its own."""
