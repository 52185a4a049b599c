"""The LangGraph state machines: pure control flow that reads and writes no files."""
