"""Errors that end a run with one line of text."""


class UserError(Exception):
    """A user's mistake in one line: what, where (file, key, line), what is allowed, what to do.

    The command line prints the line and exits with status 2, without a traceback.

    Attributes:
        everywhere: every rank raises it, so one of them reports it for all; otherwise one rank on each machine does.
    """

    everywhere = False


class RunFailed(Exception):
    """The run cannot continue, for a reason in one line: what, where, what to do. Raised on every rank alike.

    The command line prints the line and exits with status 1, without a traceback.
    """

    everywhere = True


class RankFailed(RunFailed):
    """One rank cannot continue. It reports the reason itself, whatever the others report; they end when they miss it."""

    everywhere = False
