"""Runs the whole of Easel on one machine without containers."""
