"""Replies that were paid for, and the counts of calls that each stage made."""

from pathlib import Path

STORE = Path("store")
CALLS = Path("metrics/calls")
