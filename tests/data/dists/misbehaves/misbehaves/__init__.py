"""Metrics that do what a metric must not."""
