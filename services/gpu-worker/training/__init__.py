"""How the built-in model shapes-64 is made: drawn scenes in, a diffusion pipeline directory out."""
