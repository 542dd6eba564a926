"""What can go wrong at the command line.

* FleetError           one line for the person and exit status 1
  - UnknownNameError   no such node or agent
  - StackError         pulumi ended badly, or nodes of the stack did not become ready
  - DeployError        ansible-playbook ended badly
  - BrokerError        the broker refused, or did not answer
    + UnansweredError  the same call may well be answered later
  - ConnectError       a node could not be reached over SSH
"""


class FleetError(Exception):
    """Something a person can act on; the message says what happened and what to do."""


class UnknownNameError(FleetError):
    """The inventory has no node or agent of that name."""


class StackError(FleetError):
    """The stack could not be changed or told, or its nodes did not become ready."""


class DeployError(FleetError):
    """The playbook did not finish."""


class BrokerError(FleetError):
    """The broker refused a request or did not answer.

    Attributes:
        status: The HTTP status of a refusal.
        detail: Its words.
    """

    def __init__(self, message: str, *, status: int | None = None, detail: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.detail = detail


class UnansweredError(BrokerError):
    """The broker did not answer, or asked to be called again after some seconds."""

    def __init__(self, message: str, *, status: int | None = None, detail: str = "", seconds: float = 0) -> None:
        super().__init__(message, status=status, detail=detail)
        self.seconds = seconds


class ConnectError(FleetError):
    """A node could not be reached over SSH."""
