"""Models' files on the local disk."""
