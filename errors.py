"""What the user can mend."""


class UserError(Exception):
    """Something asked for cannot be done: the message names the key or file, the value, and the valid choices.

    The command line prints it as one line and exits with 2. Every part of the package has its own kinds.
    """


class SimulationError(UserError, RuntimeError):
    """A simulation did not go on from where it was: it diverged and MuJoCo set it back, or its environment did."""
