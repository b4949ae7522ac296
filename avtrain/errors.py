"""The error that users see."""


class TrainingError(Exception):
    """The user's request cannot be fulfilled. The message is one sentence: what, which file, what
    to do."""
