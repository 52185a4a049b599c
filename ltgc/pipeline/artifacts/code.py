"""Digests of the code that each stage runs on, code/<stage>.txt."""

from pathlib import Path

CODE = Path("code")
