"""The ways of turning a request down; the text is for the caller, and never repeats what was said."""


class Refused(Exception):
    status = 400


class TooLarge(Refused):
    status = 413


class TooSlow(Refused):
    status = 408


class TooLong(Refused):
    status = 504
