"""What an operator is told when something cannot be had."""


class ProvisionError(Exception):
    """One clear line for the operator."""
