"""The stand-in for the tailscale plugin: TailnetKey, Acl and DnsPreferences, over the same HTTP API.

Contract: https://tailscale.com/api, and the Terraform provider's own use of it (tailscale/resource_*.go).
"""

from __future__ import annotations

import threading
import uuid
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import httpx

from lab.providers.kinds import Kind, Made, ProviderError, require_loopback

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lab.providers.values import Properties

_SECONDS = 15
_TRIES = 4
_PAUSE = 0.25
_AGAIN = {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE}
# A policy may only be set over one that nobody has changed yet.
_UNTOUCHED = '"ts-default"'


class Api:
    """Calls to the API of one tailnet, with time-outs and bounded retries.

    Args:
        settings: the plugin's configuration: baseUrl, tailnet, and apiKey or oauthClientId and oauthClientSecret.

    Raises:
        ProviderError: no credentials, or a URL that is not on this machine.
    """

    def __init__(self, settings: Mapping[str, str]) -> None:
        require_loopback("tailscale:baseUrl", settings.get("baseUrl", ""))
        self._settings = settings
        self._cancelled = threading.Event()
        self._http = httpx.Client(base_url=settings["baseUrl"], timeout=_SECONDS, trust_env=False)
        self._tailnet = f"/api/v2/tailnet/{settings.get('tailnet') or '-'}"
        self._lock = threading.Lock()
        self._token = settings.get("apiKey", "")
        if not self._token and not settings.get("oauthClientSecret"):
            raise ProviderError(
                "tailscale:oauthClientSecret: missing; set it with `pulumi config set --secret`, and oauthClientId too"
            )

    def cancel(self) -> None:
        """Let every wait give up."""
        self._cancelled.set()

    def call(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Make a call below the tailnet's path; answers of the API that are no success are returned too.

        Raises:
            ProviderError: the API cannot be reached, or does not know the credentials.
        """
        headers = {"Authorization": f"Bearer {self._credential()}", **options.pop("headers", {})}
        return self._send(method, f"{self._tailnet}{path}", headers=headers, **options)

    def _credential(self) -> str:
        with self._lock:
            if not self._token:
                form = {
                    "grant_type": "client_credentials",
                    "client_id": self._settings.get("oauthClientId", ""),
                    "client_secret": self._settings["oauthClientSecret"],
                }
                answer = self._send("POST", "/api/v2/oauth/token", data=form)
                self._token = checked(answer, "tailscale:oauthClientId")["access_token"]
            return self._token

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        for left in range(_TRIES - 1, -1, -1):
            try:
                answer = self._http.request(method, path, **options)
                if answer.status_code not in _AGAIN or not left:
                    return answer
            except httpx.TransportError as error:
                # A connection that was never made has changed nothing; after that, only reads are safe to repeat.
                if not left or (method != "GET" and not isinstance(error, httpx.ConnectError)):
                    raise ProviderError(f"{method} {path}: {error}") from error
            if self._cancelled.wait(_PAUSE * (_TRIES - left)):
                raise ProviderError("cancelled")
        raise AssertionError


def checked(answer: httpx.Response, what: str) -> Any:
    """Return the JSON of a successful answer.

    Raises:
        ProviderError: it is none; with the API's own message.
    """
    if answer.is_success:
        return answer.json() if answer.content else {}
    try:
        message = answer.json()["message"]
    except (ValueError, KeyError, TypeError):
        message = answer.text
    raise ProviderError(f"{what}: {message} ({answer.status_code})")


class Keys(Kind):
    """Keys with which nodes join. One that is spent or expired is `invalid`, and no reason to make another."""

    computed = ("createdAt", "expiresAt", "expiry", "invalid", "key", "userId")

    def __init__(self, api: Api) -> None:
        self._api = api

    def create(self, inputs: Properties, made: Made) -> None:
        """Make a key. The API tells its secret this once."""
        capabilities = {name: inputs.get(name, False) for name in ("reusable", "ephemeral", "preauthorized")}
        body = {
            "capabilities": {"devices": {"create": {**capabilities, "tags": inputs.get("tags", [])}}},
            "expirySeconds": inputs.get("expiry", 0),
            "description": inputs.get("description", ""),
        }
        key = checked(self._api.call("POST", "/keys", json=body), "create key")
        made(key["id"], key=key["key"], invalid=False)

    def read(self, object_id: str, known: Properties) -> Properties | None:
        """Return the state. A key that is not there any more is invalid, not gone."""
        answer = self._api.call("GET", f"/keys/{object_id}")
        if answer.status_code == HTTPStatus.NOT_FOUND:
            return {**known, "invalid": True}
        key = checked(answer, f"read key {object_id}")
        create = key.get("capabilities", {}).get("devices", {}).get("create", {})
        return {
            **{name: known[name] for name in ("key", "recreateIfInvalid") if name in known},
            **{name: create.get(name, False) for name in ("reusable", "ephemeral", "preauthorized")},
            "tags": create.get("tags") or [],
            "expiry": key.get("expirySeconds", known.get("expiry")),
            "createdAt": key["created"],
            "expiresAt": key["expires"],
            "description": key.get("description", ""),
            "userId": key.get("userId", ""),
            "invalid": bool(key.get("invalid")),
        }

    def update(self, object_id: str, changed: Properties, news: Properties) -> None:
        """Do nothing: what can change is the plugin's own."""

    def delete(self, object_id: str, state: Properties) -> None:
        """Delete a key; one that is gone is fine."""
        del state
        answer = self._api.call("DELETE", f"/keys/{object_id}")
        if answer.status_code != HTTPStatus.NOT_FOUND:
            checked(answer, f"delete key {object_id}")

    def must_be_replaced(self, state: Properties, news: Properties) -> bool:
        """Return whether an invalid key is to be made anew (shouldRecreateIfInvalid)."""
        always = news.get("reusable", False) if news.get("recreateIfInvalid") is None else False
        return bool(state.get("invalid")) and bool(always or news.get("recreateIfInvalid") == "always")


class Acls(Kind):
    """The tailnet's policy."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def check(self, inputs: Properties) -> None:
        """Have the API judge a policy before anything is changed."""
        headers = {"Content-Type": "application/hujson"}
        answer = self._api.call("POST", "/acl/validate", content=inputs["acl"].encode(), headers=headers)
        if problems := checked(answer, "acl"):
            raise ProviderError(f"acl: {problems.get('message', problems)}")

    def create(self, inputs: Properties, made: Made) -> None:
        """Set the policy, but not over one that somebody has changed, unless told to."""
        headers = {} if inputs.get("overwriteExistingContent") else {"If-Match": _UNTOUCHED}
        answer = self._set(inputs["acl"], headers)
        if answer.status_code == HTTPStatus.PRECONDITION_FAILED:
            raise ProviderError(
                "acl: the tailnet has a policy of its own, and this would overwrite it; import it first, or set "
                "overwriteExistingContent"
            )
        checked(answer, "acl")
        made(str(uuid.uuid4()))

    def read(self, object_id: str, known: Properties) -> Properties | None:
        """Return the state: the policy as text."""
        del object_id
        answer = self._api.call("GET", "/acl", headers={"Accept": "application/hujson"})
        if not answer.is_success:
            checked(answer, "read acl")
        kept: Properties = {
            name: known[name] for name in ("overwriteExistingContent", "resetAclOnDestroy") if name in known
        }
        return {**kept, "acl": answer.text}

    def update(self, object_id: str, changed: Properties, news: Properties) -> None:
        """Set the policy, whatever is there."""
        del object_id, news
        if "acl" in changed:
            checked(self._set(changed["acl"], {}), "acl")

    def delete(self, object_id: str, state: Properties) -> None:
        """Leave the policy as it is, unless it is to be reset."""
        del object_id
        if state.get("resetAclOnDestroy"):
            checked(self._set("", {}), "acl")

    def _set(self, policy: str, headers: dict[str, str]) -> httpx.Response:
        headers = {"Content-Type": "application/hujson", **headers}
        return self._api.call("POST", "/acl", content=policy.encode(), headers=headers)


class DnsPreferences(Kind):
    """Whether the tailnet has MagicDNS. Deleting this switches it off, as the plugin does: retain it."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def create(self, inputs: Properties, made: Made) -> None:
        """Set it."""
        self._set(inputs["magicDns"])
        made(str(uuid.uuid4()))

    def read(self, object_id: str, known: Properties) -> Properties | None:
        """Return the state."""
        del object_id, known
        preferences = checked(self._api.call("GET", "/dns/preferences"), "read DNS preferences")
        return {"magicDns": preferences["magicDNS"]}

    def update(self, object_id: str, changed: Properties, news: Properties) -> None:
        """Set it."""
        del object_id, news
        if "magicDns" in changed:
            self._set(changed["magicDns"])

    def delete(self, object_id: str, state: Properties) -> None:
        """Switch MagicDNS off."""
        del object_id, state
        self._set(enabled=False)

    def _set(self, enabled: bool) -> None:
        checked(self._api.call("POST", "/dns/preferences", json={"magicDNS": enabled}), "DNS preferences")


class Tailscale:
    """What the stand-in offers once it has its configuration."""

    def __init__(self, settings: Mapping[str, str]) -> None:
        self._api = api = Api(settings)
        self.kinds: Mapping[str, Kind] = {
            "tailscale:index/acl:Acl": Acls(api),
            "tailscale:index/dnsPreferences:DnsPreferences": DnsPreferences(api),
            "tailscale:index/tailnetKey:TailnetKey": Keys(api),
        }

    def cancel(self) -> None:
        """Let every wait give up."""
        self._api.cancel()
