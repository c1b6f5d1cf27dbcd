"""How large a message may be, the same on both sides of every call."""

MAX_MESSAGE_BYTES = 32 * 1024 * 1024
"""The largest is a batch of jobs with the longest prompts, 17 KB each on the wire."""
