"""The embedded default: a drawn data set, a local OpenAI-compatible endpoint, a small CLIP. Deletable."""
