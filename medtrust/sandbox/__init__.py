"""Runs what strangers wrote in a process that may compute and nothing else; `process.Sandbox` is its front door.

Nothing is imported here: the confined process passes through on its way to `worker`, before it gives up its rights.
"""
