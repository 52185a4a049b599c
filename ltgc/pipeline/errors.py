"""The one error a user should see as one line: what is wrong, where, and what to do."""


class LTGCError(Exception):
    """A problem the user can mend. The message names the file, key or class and the remedy."""
