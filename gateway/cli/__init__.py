"""A client of the gateway for the command line. It knows nothing of its inside."""


class Stopped(Exception):
    """One line for the person at the command line."""
