"""A plugin in working order."""
