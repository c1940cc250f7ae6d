"""What the user can put right."""


class UserError(Exception):
    """Something wrong with a setting, a file or a folder: one line that names it and the remedy.

    The command line prints it and exits with 2; nothing has been written by then.
    """


class Stopped(Exception):
    """Someone asked the run to stop in the middle of an iteration."""
