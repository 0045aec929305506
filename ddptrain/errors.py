"""Errors that end a run in one line. No torch here: the command line and the launcher use it too."""


class UserError(Exception):
    """A mistake of the user, told in one line: what, where (file, key, line), what is allowed, what to do.

    The command line prints the line and exits with status 2, without a traceback.

    Attributes:
        everywhere: all ranks raise it alike, so that one of them speaks for all; otherwise one on each machine does.
    """

    everywhere = False


class RunFailed(Exception):
    """The run cannot go on, told in one line: what, where, what to do. Raised on every rank alike.

    The command line prints the line and exits with status 1, without a traceback.
    """


class RankFailed(RunFailed):
    """One rank cannot go on; it says so itself, whatever the others say. They end by themselves when they miss it."""
