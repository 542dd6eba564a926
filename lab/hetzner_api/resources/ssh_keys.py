"""SSH keys."""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import TYPE_CHECKING

from lab.hetzner_api.calls import Answer
from lab.hetzner_api.errors import ApiError, invalid
from lab.hetzner_api.resources import common

if TYPE_CHECKING:
    from lab.hetzner_api.calls import Call, Routes
    from lab.hetzner_api.store import Record, Records

_TYPES = ("ssh-ed25519", "ssh-rsa", "ecdsa-sha2-", "sk-ssh-ed25519@", "sk-ecdsa-sha2-")


def _render(_records: Records, key: Record) -> Record:
    return key


KIND = common.Kind("ssh_key", "ssh_keys", _render, ("name", "fingerprint"))


def _create(call: Call) -> Answer:
    name, public_key = call.body.name(), call.body.take("public_key", str).strip()
    fingerprint, labels = _fingerprint(public_key), call.body.labels()
    call.body.finish()
    common.require_free_name(call.records, "ssh_key", name)
    if any(key["fingerprint"] == fingerprint for key in call.records.all("ssh_key")):
        raise ApiError("uniqueness_error", "SSH key not unique", {"fields": [{"name": "public_key"}]})
    common.require_within_limit(call.records, "ssh_key")
    key = call.records.add("ssh_key", name=name, public_key=public_key, fingerprint=fingerprint, labels=labels)
    return KIND.answer(call, key, 201)


def _fingerprint(public_key: str) -> str:
    words = public_key.split()
    try:
        blob = base64.b64decode(words[1], validate=True)
    except (IndexError, binascii.Error):
        blob = b""
    if not blob or not words[0].startswith(_TYPES) or "\n" in public_key:
        raise invalid("public_key", "is no SSH public key")
    return hashlib.md5(blob, usedforsecurity=False).digest().hex(":")


def _delete(call: Call) -> Answer:
    call.records.remove("ssh_key", KIND.get(call)["id"])
    return Answer(204)


ROUTES: Routes = {
    **KIND.routes(),
    ("POST", "/ssh_keys"): _create,
    ("DELETE", "/ssh_keys/{id}"): _delete,
}
