"""Telling systemd how we are (sd_notify), without a library."""

import os
import socket


def notify(state: str) -> None:
    """Send e.g. ``READY=1``; without systemd this does nothing."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.sendto(state.encode(), address)
