"""The root of all errors that are the user's to mend."""


class InputError(ValueError):
    """Something asked for that cannot be done. The message is one clear line: the key, the value, what is allowed.

    The command line prints it and ends with status 2; any other exception is a fault of gradwire and shows a traceback.
    """
