"""A plugin of version 1 of the interface. Frozen: never change it, change medtrust so that it works."""
