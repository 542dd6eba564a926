"""The properties of a job's unit: what ends it, and what it may see. Pure; measured on systemd 252 and 257.

The records are written by ExecStartPre and ExecStopPost with the flag ``privileged``: in a user's manager that gives
no privilege, but leaves the sandbox out, so that they reach the state directory which the job itself cannot see.
"""

import os
import sys
from pathlib import Path

from runner_app import records
from runner_app.execution import TERM_SECONDS, deadman_seconds, environment, launch
from runner_app.handlers.exec import STDERR, STDOUT
from runner_app.job import Command
from runner_app.journal import Claim
from runner_app.settings import Settings
from runner_app.usermanager import Property

_EPERM = 1
_MICROSECONDS = 1_000_000

# Switches of the same name in systemd.exec(5). PrivateUsers comes first because systemd 252 silently leaves out most
# of the others without it.
_SWITCHES = (
    "PrivateUsers",
    "NoNewPrivileges",
    "PrivateTmp",
    "PrivateDevices",
    "ProtectControlGroups",
    "ProtectKernelTunables",
    "ProtectKernelModules",
    "ProtectClock",
    "LockPersonality",
    "RestrictRealtime",
    "RestrictSUIDSGID",
)


def job_properties(claim: Claim, command: Command, settings: Settings) -> list[Property]:
    """Return the properties of the unit that runs a job."""
    directory = claim.directory
    return [
        ("Description", ("s", f"Job {claim.job.id}, delivery {claim.job.lease_epoch}")),
        ("Slice", ("s", "jobs.slice")),
        ("Type", ("s", "exec")),
        ("ExecStartPreEx", ("a(sasas)", [_recorder("started", directory)])),
        ("ExecStartEx", ("a(sasas)", [_program(launch(command), "no-env-expand")])),
        ("ExecStopPostEx", ("a(sasas)", [_recorder("ended", directory)])),
        ("StandardOutputFileToAppend", ("s", str(directory / STDOUT))),
        ("StandardErrorFileToAppend", ("s", str(directory / STDERR))),
        ("UMask", ("u", 0o077)),
        ("WorkingDirectory", ("s", "/")),
        ("KillMode", ("s", "control-group")),
        ("TimeoutStopUSec", ("t", TERM_SECONDS * _MICROSECONDS)),
        ("RuntimeMaxUSec", ("t", command.timeout_ms * 1000)),
        ("OOMPolicy", ("s", "stop")),
        ("Environment", ("as", _pairs(environment(str(settings.workspace), claim)))),
        ("UnsetEnvironment", ("as", ["XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS", "SSH_AUTH_SOCK"])),
        *_sandbox(settings),
    ]


def timer_properties(claim: Claim) -> list[Property]:
    """Return the properties of the dead-man timer; each start of it puts the moment off."""
    microseconds = round(deadman_seconds(claim.job.lease_seconds) * _MICROSECONDS)
    return [
        ("Description", ("s", f"Lease of {claim.name}")),
        ("TimersMonotonic", ("a(st)", [("OnActiveSec", microseconds)])),
        ("AccuracyUSec", ("t", 100_000)),
        ("RemainAfterElapse", ("b", False)),
        ("CollectMode", ("s", "inactive-or-failed")),
    ]


def killer_properties(claim: Claim) -> list[Property]:
    """Return the properties of the unit that the dead-man timer starts: it says why, then kills the whole job."""
    kill = ["/usr/bin/systemctl", "--user", "kill", "--signal=KILL", f"{claim.name}.service"]
    return [
        ("Description", ("s", f"Kill {claim.name}, whose lease nobody renewed")),
        ("Type", ("s", "oneshot")),
        ("ExecStartEx", ("a(sasas)", [_recorder("stop", claim.directory, "lease"), _program(kill)])),
        ("CollectMode", ("s", "inactive-or-failed")),
    ]


def _sandbox(settings: Settings) -> list[Property]:
    workspace = str(settings.workspace)
    return [
        *((switch, ("b", True)) for switch in _SWITCHES),
        ("ProtectSystem", ("s", "strict")),
        # Hides every home and every /run/user: the bus, systemd's sockets, credentials, units and the runner's state.
        ("ProtectHome", ("s", "tmpfs")),
        ("BindPaths", ("a(ssbt)", [(workspace, workspace, False, 0)])),
        ("ReadWritePaths", ("as", [workspace])),
        ("InaccessiblePaths", ("as", _hidden(settings))),
        ("RestrictNamespaces", ("t", 0)),
        ("RestrictAddressFamilies", ("(bas)", (True, ["AF_UNIX", "AF_INET", "AF_INET6", "AF_NETLINK"]))),
        ("SystemCallFilter", ("(bas)", (True, ["@system-service"]))),
        ("SystemCallErrorNumber", ("i", _EPERM)),
        ("SystemCallArchitectures", ("as", ["native"])),
    ]


def _hidden(settings: Settings) -> list[str]:
    """Return what else a job must not reach, for a state directory outside of /home too.

    The dash is systemd's "if it is there". TemporaryFileSystem= would be simpler, but systemd applies it to the
    recorders as well, and cannot.
    """
    paths = ["/etc/openclaw", "/etc/systemd/user", "/run/dbus", "/run/systemd/private"]
    paths += [str(settings.jobs_dir), str(settings.plans_dir), str(settings.lock_file)]
    paths += [path for path in (os.environ.get("CREDENTIALS_DIRECTORY"), os.environ.get("XDG_RUNTIME_DIR")) if path]
    return [f"-{path}" for path in paths]


def _recorder(verb: str, directory: Path, *more: str) -> tuple[str, list[str], list[str]]:
    script = [sys.executable, "-I", "-S", str(Path(records.__file__)), verb, str(directory), *more]
    return _program(script, "privileged", "no-env-expand")


def _program(argv: list[str], *flags: str) -> tuple[str, list[str], list[str]]:
    return argv[0], argv, list(flags)


def _pairs(variables: dict[str, str]) -> list[str]:
    return [f"{key}={value}" for key, value in variables.items()]
