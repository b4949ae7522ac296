"""Errors that the command line shows as one sentence."""


class UserError(Exception):
    """A mistake of the user; the message says in one sentence what is wrong and what to do."""


class ClipError(Exception):
    """A recording or a clip of it cannot become a sample; the run goes on without it.

    The message says in one sentence what is wrong with it and what to do.
    """


def in_a_sentence(error: Exception) -> str:
    """What a broken file provoked, in one line."""
    if isinstance(error, ClipError):
        text = str(error)
    elif isinstance(error, OSError) and error.filename is not None:
        text = f"{error.filename} cannot be read: {error.strerror}"
    elif isinstance(error, MemoryError):
        text = "it needs more memory than there is; it is damaged, or allow more memory"
    else:
        text = f"unexpected {type(error).__name__}: {error}"
    # Names and messages may hold anything, line breaks too.
    return "".join(c if c.isprintable() else " " for c in text)
