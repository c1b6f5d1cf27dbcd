"""The engine: one thread owns the device and denoises step by step. Torch lives here alone."""
