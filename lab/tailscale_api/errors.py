"""What a call can end with instead of its answer."""

from __future__ import annotations


class ApiError(Exception):
    """An answer with this status and `{"message": …}`, as Tailscale's errors are."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class PolicyError(ApiError):
    """The policy is none: status 400."""

    def __init__(self, message: str) -> None:
        super().__init__(400, message)


class NotHereError(ApiError):
    """Tailscale has it and the lab has not: status 501, and the message names it."""

    def __init__(self, what: str) -> None:
        super().__init__(501, f"the lab's Tailscale API does not have {what}")
