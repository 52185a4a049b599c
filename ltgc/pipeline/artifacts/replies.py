"""Replies that were paid for, and the counts of calls that each stage made."""

from pathlib import Path

STORE = Path("store")
LOCK = Path("dvc.lock")  # of DVC; the library reads in it which replies were paid for
CALLS = Path("metrics/calls")
