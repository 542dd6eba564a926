"""The calls: what each takes, refuses and answers, by https://tailscale.com/api."""

from __future__ import annotations

import hashlib
import secrets
import time
from typing import TYPE_CHECKING, Any

from lab.tailscale_api import answers, policy
from lab.tailscale_api.errors import ApiError, PolicyError
from lab.tailscale_api.requests import LABEL, KeyRequest
from lab.tailscale_api.state import DEFAULT_POLICY, Device, Key, State

if TYPE_CHECKING:
    from lab.tailscale_api.backend import Backend

_TOKEN_SECONDS = 3600
# Those that the OAuth client was made with.
_CLIENT_TAGS = {"tag:openclaw"}
# Matches as long as nobody has changed a new tailnet's policy.
_DEFAULT_ETAG = "ts-default"


class Service:
    """A tailnet's API; one call at a time."""

    def __init__(self, state: State, backend: Backend) -> None:
        """Bring the kept policy into force: what a restart of headscale had forgotten is so again."""
        self._state = state
        self._backend = backend
        backend.set_policy(policy.standardize(state.policy))

    def create_token(self, client_id: str, client_secret: str) -> dict[str, Any]:
        """Return an access token for the OAuth client; ApiError 401 for another."""
        known = self._state.credentials
        if not _same(client_id, known.client_id) or not _same(client_secret, known.client_secret):
            raise ApiError(401, "API token invalid")
        now = time.time()
        token = f"tskey-api-{known.client_id}-{secrets.token_hex(16)}"
        self._state.tokens = {old: end for old, end in self._state.tokens.items() if end > now}
        self._state.tokens[token] = now + _TOKEN_SECONDS
        self._state.save()
        return {"access_token": token, "token_type": "Bearer", "expires_in": _TOKEN_SECONDS, "scope": "all"}

    def is_oauth(self, token: str) -> bool:
        """Say whether the caller is the OAuth client, or else the person whose API key it is.

        Raises:
            ApiError: 401, it is neither.
        """
        if _same(token, self._state.credentials.api_key):
            return False
        if self._state.tokens.get(token, 0) <= time.time():
            raise ApiError(401, "API token invalid")
        return True

    def create_key(self, body: dict[str, Any], *, oauth: bool) -> dict[str, Any]:
        """Make an auth key; its secret is in this answer only."""
        wanted = KeyRequest.parse(body)
        if oauth and not wanted.tags:
            raise ApiError(400, "tailnet-owned auth key must have tags set")
        if refused := self._not_permitted(set(wanted.tags), oauth=oauth):
            raise ApiError(400, f"requested tags {sorted(refused)} are invalid or not permitted")
        secret, now = self._backend.create_key(wanted), time.time()
        key = Key(
            id=f"k{self._state.next_id()}CNTRL",
            secret=secret,
            description=wanted.description,
            created=now,
            expires=now + wanted.seconds,
            reusable=wanted.reusable,
            ephemeral=wanted.ephemeral,
            preauthorized=wanted.preauthorized,
            tags=wanted.tags,
        )
        self._state.keys[key.id] = key
        self._state.save()
        return {**answers.key(key), "key": secret}

    def _not_permitted(self, wanted: set[str], *, oauth: bool) -> set[str]:
        """Return the tags that a key may not have.

        An OAuth client's keys have all of its tags, or ones that its tags own:
        https://tailscale.com/kb/1215/oauth-clients#generating-long-lived-auth-keys
        """
        owners = policy.tag_owners(policy.parse(self._state.policy))
        known = wanted & owners.keys()
        if not oauth or wanted == _CLIENT_TAGS:
            return wanted - known
        return wanted - {tag for tag in known if _CLIENT_TAGS & set(owners[tag])}

    def list_keys(self) -> dict[str, Any]:
        """Return the keys that admit a device."""
        spent = self._backend.spent()
        keys = [key for key in self._state.keys.values() if key.secret not in spent and not key.is_invalid]
        return {"keys": [answers.key(key) for key in keys]}

    def key(self, key_id: str) -> dict[str, Any]:
        """Return a key without its secret: a spent one is gone, one that was deleted or has expired is invalid."""
        return answers.key(self._key(key_id))

    def delete_key(self, key_id: str) -> None:
        """Let no device join with a key any more."""
        key = self._key(key_id)
        if key.revoked:
            raise ApiError(404, "key not found")
        self._backend.revoke_key(key.secret)
        key.revoked = time.time()
        self._state.save()

    def _key(self, key_id: str) -> Key:
        key = self._state.keys.get(key_id)
        if key is None or key.secret in self._backend.spent():
            raise ApiError(404, "key not found")
        return key

    def policy(self) -> tuple[str, str]:
        """Return the policy as it was given, HuJSON, and its ETag."""
        return self._state.policy, _etag(self._state.policy)

    def set_policy(self, text: str, if_match: str) -> None:
        """Bring a policy into force; with `if_match`, only in place of the one that has this ETag."""
        expected = if_match.strip('"')
        is_default = expected == _DEFAULT_ETAG and self._state.policy == DEFAULT_POLICY
        if expected and expected != _etag(self._state.policy) and not is_default:
            raise ApiError(412, "precondition failed, invalid old hash")
        policy.check(policy.parse(text))
        self._backend.set_policy(policy.standardize(text))
        self._state.policy = text
        self._state.save()

    def validate_policy(self, text: str) -> dict[str, Any]:
        """Return an empty answer for a policy that is valid, else what is wrong with it; nothing is changed."""
        try:
            policy.check(policy.parse(text))
        except PolicyError as error:
            return {"message": error.message}
        return {}

    def dns_preferences(self) -> dict[str, Any]:
        """Return whether names are those of devices."""
        return {"magicDNS": self._state.magic_dns}

    def set_dns_preferences(self, body: dict[str, Any]) -> dict[str, Any]:
        """Switch MagicDNS."""
        if not isinstance(body.get("magicDNS"), bool):
            raise ApiError(400, "magicDNS must be true or false")
        self._backend.set_magic_dns(body["magicDNS"])
        self._state.magic_dns = body["magicDNS"]
        self._state.save()
        return self.dns_preferences()

    def list_devices(self) -> dict[str, Any]:
        """Return all devices."""
        return {"devices": [answers.device(device) for device in self._backend.devices()]}

    def device(self, device_id: str) -> dict[str, Any]:
        """Return a device by its id or its node's id."""
        return answers.device(self._device(device_id))

    def rename_device(self, device_id: str, body: dict[str, Any]) -> None:
        """Give a device the name in the body, without its domain."""
        name = body.get("name")
        if not isinstance(name, str) or not LABEL.fullmatch(name):
            raise ApiError(400, "name must be a DNS label in small letters")
        renamed = self._device(device_id)
        taken = {device.name.partition(".")[0] for device in self._backend.devices() if device.id != renamed.id}
        if name in taken:
            raise ApiError(400, f"the name {name!r} is another device's")
        self._backend.rename_device(renamed.id, name)
        self._state.save()

    def delete_device(self, device_id: str) -> None:
        """Remove a device from the tailnet."""
        self._backend.delete_device(self._device(device_id).id)
        self._state.save()

    def _device(self, device_id: str) -> Device:
        for device in self._backend.devices():
            if device_id in {device.id, answers.node_id(device)}:
                return device
        raise ApiError(404, "no such device")


def _same(given: str, known: str) -> bool:
    return secrets.compare_digest(given.encode(), known.encode())


def _etag(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
