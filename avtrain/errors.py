"""A user's mistake, said in one sentence."""


class TrainingError(Exception):
    """What the user asked for cannot be done; the message is one sentence for the user."""
