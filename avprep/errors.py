"""Errors that the command line shows as one sentence."""


class UserError(Exception):
    """A mistake of the user; the message says in one sentence what is wrong and what to do."""


class ClipError(Exception):
    """A recording or a clip of it cannot become a sample; the run goes on without it.

    The message says in one sentence what is wrong with it and what to do.
    """
