"""How a run ends early."""


class RunError(Exception):
    """A mistake that the user can mend, or a run that must stop: printed as one line, exit code 1."""


class InterruptedAtOnce(BaseException):
    """A signal arrived where there is nothing to save yet: raised wherever the main thread is.

    No Exception, so that nobody takes it for a damaged file.
    """


class Interrupted(Exception):
    """SIGTERM or SIGINT arrived; the state is saved. Exit code 143, as for any terminated process."""


def one_line(error: BaseException) -> str:
    """What an error says, or else its name, in one line."""
    return " ".join(str(error).split()) or type(error).__name__
