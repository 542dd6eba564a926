"""What can go wrong in the program, besides what the engine reports itself.

* InfraError             a person can act on it; the message says what happened and what to do
  - ConfigurationError   the stack's configuration is wrong: one line for every mistake in it
  - ServiceError         an HTTP API refused a request or did not answer
"""


class InfraError(Exception):
    """Something a person can act on; the message says what happened and what to do."""


class ConfigurationError(InfraError):
    """The stack's configuration is wrong; `problems` holds one line for every mistake."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class ServiceError(InfraError):
    """An HTTP API refused a request or did not answer; `status` is its answer's, None without one."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status
