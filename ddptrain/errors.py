"""Errors that end a run in one line. No torch here: the command line and the launcher use it too."""


class UserError(Exception):
    """A mistake of the user, told in one line: what, where (file, key, line), what is allowed, what to do.

    The command line prints the line and exits with status 2, without a traceback.
    """
