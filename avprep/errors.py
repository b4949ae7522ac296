"""Errors that the command line shows as one sentence."""


class UserError(Exception):
    """A mistake in the command or its input; the message says in one sentence what is wrong and
    what to do."""


class ClipError(Exception):
    """A recording or clip that cannot become a sample; the command continues without it.

    The message says in one sentence what is wrong and what to do.
    """


def one_sentence(error: Exception) -> str:
    """Describe an error that a broken file caused, in one line."""
    if isinstance(error, ClipError):
        text = str(error)
    elif isinstance(error, OSError) and error.filename is not None:
        text = f"{error.filename} cannot be read: {error.strerror}"
    elif isinstance(error, MemoryError):
        text = "reading it takes more memory than there is; it is damaged, or allow more memory"
    else:
        text = f"unexpected {type(error).__name__}: {error}"
    # File names and messages may hold any character, line breaks included.
    return "".join(c if c.isprintable() else " " for c in text)
