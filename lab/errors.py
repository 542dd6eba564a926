"""What can go wrong in a lab.

* LabError                a message for the person, and a non-zero exit
  - CommandFailedError    a program that the lab runs ended badly
  - NotReadyError         something did not become ready in time
"""


class LabError(Exception):
    """The lab cannot do what was asked; the message says why and what to do."""


class CommandFailedError(LabError):
    """A program ended with a non-zero status."""


class NotReadyError(LabError):
    """A host or a service did not become ready in time."""
