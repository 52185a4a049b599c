"""LTGC: long-tail recognition with generated content (CVPR 2024), the library behind the stages."""
