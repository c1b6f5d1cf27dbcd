"""Families of models: how each encodes, denoises and decodes, behind `engine.model.Model`."""
