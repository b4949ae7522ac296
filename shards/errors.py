"""The error raised for an unusable shard set."""


class ShardError(Exception):
    """A folder is not a finished shard set, or a file in it is missing or damaged.

    The message is one sentence for the user: which file, what is wrong, what to do.
    """
