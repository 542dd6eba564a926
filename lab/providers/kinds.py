"""What a provider is made of: kinds of resources over a connection to their API."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lab.providers.values import Properties


class ProviderError(Exception):
    """The provider cannot do what was asked; the message is for the person."""


class Made:
    """What a kind says of an object as soon as the API has it, so that a failure after that loses nothing."""

    def __init__(self) -> None:
        self.id: str | None = None
        self.outputs: Properties = {}

    def __call__(self, made_id: str, **outputs: object) -> None:
        """Record the object's id, and what the API will not tell again."""
        self.id = made_id
        self.outputs = outputs


class Kind:
    """One kind of resource. What it does about changes is in `lab.providers.decisions`."""

    #: Outputs that are no inputs, which a preview cannot know.
    computed: tuple[str, ...] = ()

    def check(self, inputs: Properties) -> None:
        """Refuse inputs that the API would refuse. Called at previews too, if all inputs are known.

        Raises:
            ProviderError: what is wrong with them.
        """

    def create(self, inputs: Properties, made: Made) -> None:
        """Make an object and wait until it is whole; call `made` as soon as there is one."""
        raise NotImplementedError

    def read(self, object_id: str, known: Properties) -> Properties | None:
        """Return an object's whole state, or None if there is none.

        `known` holds what the API may not tell: the state so far, or the inputs of a new object.
        """
        raise NotImplementedError

    def update(self, object_id: str, changed: Properties, news: Properties) -> None:
        """Bring an object from its state to the inputs `news`, of which `changed` are to be updated."""
        raise NotImplementedError

    def delete(self, object_id: str, state: Properties) -> None:
        """Delete an object and wait until it is gone."""
        raise NotImplementedError

    def must_be_replaced(self, state: Properties, news: Properties) -> bool:
        """Return whether an object is to be replaced though none of its inputs changed."""
        del state, news
        return False


class Connected(Protocol):
    """A provider that has its configuration."""

    kinds: Mapping[str, Kind]

    def cancel(self) -> None:
        """Let whatever waits for the API give up."""
        ...


def require_loopback(name: str, url: str) -> None:
    """Refuse an API that is not on this machine: a stand-in's mistakes must never reach a real account.

    Raises:
        ProviderError: `url`, the value of the configuration key `name`, leads elsewhere or is missing.
    """
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return
    try:
        if ipaddress.ip_address(host).is_loopback:
            return
    except ValueError:
        pass
    raise ProviderError(
        f"{name}: {url or 'not set, so the real service'}: this is the lab's stand-in for the real plugin, and it "
        f"talks to this machine only; install the real one with `pulumi plugin install`, or set {name} to the lab's"
    )
