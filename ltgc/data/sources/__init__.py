"""Data sources: one small module each, a function from the `data` section of params.yaml to what it holds."""
