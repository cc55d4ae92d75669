"""Built-in plugins of medtrust."""
