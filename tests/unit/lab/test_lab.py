"""What follows from a lab's name, and what it says where a name is none."""

from __future__ import annotations

import ipaddress

import pytest

from lab.errors import LabError
from lab.lab import Lab


@pytest.mark.parametrize("name", ["", "1st", "UPPER", "a/b", "..", "a" * 25, "a b"])
def test_a_name_that_could_not_be_a_folder_or_a_group_is_refused(name: str) -> None:
    with pytest.raises(LabError, match="small letters"):
        Lab(name)


def test_two_labs_share_nothing() -> None:
    one, other = Lab("one"), Lab("other")
    assert one.folder != other.folder
    assert one.cgroup != other.cgroup
    assert one.prefix != other.prefix


@pytest.mark.parametrize("name", ["a", "lab-123456", "mol-runner"])
def test_addresses_are_private(name: str) -> None:
    assert ipaddress.ip_address(Lab(name).gateway).is_private


def test_an_unknown_host_is_named_with_those_there_are() -> None:
    with pytest.raises(LabError, match=r"no host 'nobody'; it has: none"):
        Lab("not-there").machine("nobody")
