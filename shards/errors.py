"""What can be wrong with a shard set, said in one sentence."""


class ShardError(Exception):
    """A folder is no finished shard set, or its content is not what it says.

    The message is one sentence for the user: which file, what is wrong, what to do.
    """
