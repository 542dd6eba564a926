"""The ports that tests give to their servers."""

from __future__ import annotations

from pathlib import Path

from tests.support.ports import free_ports


def test_a_server_s_port_is_none_that_a_connection_may_be_given() -> None:
    lowest, _ = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    ports = free_ports(100)
    assert len({*ports}) == 100
    assert max(ports) < int(lowest)
