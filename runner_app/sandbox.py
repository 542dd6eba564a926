"""The unit files of a job: what ends it, and what it may see. Pure; measured on systemd 252 and 257.

They are files in the manager's runtime directory and not D-Bus properties, because systemd 252 forgets the flags of a
transient unit's commands, and with them the commands, at the next daemon-reload: the job's end went unrecorded.

The recorders have the prefix ``+``: in a user's manager that gives no privilege, but leaves the sandbox out, so that
they reach the state directory which the job itself cannot see. systemd cannot do that, and then starts nothing, where
TemporaryFileSystem= or a BindPaths= onto another path is set as well.
"""

import os
import sys

from runner_app import records
from runner_app.execution import TERM_SECONDS, deadman_seconds, environment
from runner_app.handlers.exec import STDERR, STDOUT
from runner_app.job import Command
from runner_app.journal import Claim
from runner_app.outcome import STOP_LEASE
from runner_app.settings import Settings
from runner_app.supervisor import SCRIPT

# PrivateUsers is what makes systemd 252 heed most of the others; without it they are silently left out.
# ProtectHome=tmpfs hides every home and every /run/user: the bus, systemd's sockets, credentials, unit directories and
# the runner's state. ProtectControlGroups keeps the job from moving itself out of its unit.
_WALLS = """\
PrivateUsers=yes
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=tmpfs
PrivateTmp=yes
PrivateDevices=yes
ProtectControlGroups=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectClock=yes
LockPersonality=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictNamespaces=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM
SystemCallArchitectures=native
"""


def job_unit(claim: Claim, command: Command, settings: Settings) -> str:
    """Return the service that runs a job; its program is the shell script in the job's directory."""
    directory = claim.directory
    variables = environment(str(settings.workspace), claim).items()
    return f"""\
[Unit]
Description=Job {claim.job.id}, delivery {claim.job.lease_epoch}

[Service]
Slice=jobs.slice
Type=exec
ExecStartPre=+{_record("started", claim)}
ExecStart=/bin/sh
ExecStopPost=+{_record("ended", claim)}
StandardInput=file:{directory / SCRIPT}
StandardOutput=append:{directory / STDOUT}
StandardError=append:{directory / STDERR}
UMask=0077
KillMode=control-group
TimeoutStopSec={TERM_SECONDS}
RuntimeMaxSec={command.timeout_ms}ms
OOMPolicy=stop
Environment={" ".join(f"{key}={value}" for key, value in variables)}
UnsetEnvironment=XDG_RUNTIME_DIR DBUS_SESSION_BUS_ADDRESS SSH_AUTH_SOCK
{_WALLS}\
BindPaths={settings.workspace}
ReadWritePaths={settings.workspace}
InaccessiblePaths={" ".join(_hidden(settings))}
"""


def lease_timer(claim: Claim) -> str:
    """Return the dead-man timer; each start of it puts the moment off."""
    return f"""\
[Unit]
Description=Lease of {claim.name}
CollectMode=inactive-or-failed

[Timer]
OnActiveSec={round(deadman_seconds(claim.job.lease_seconds) * 1000)}ms
AccuracySec=100ms
RemainAfterElapse=no
"""


def lease_service(claim: Claim) -> str:
    """Return what the dead-man timer starts: it notes why, then kills the whole job."""
    return f"""\
[Unit]
Description=Kill {claim.name}, whose lease nobody renewed
CollectMode=inactive-or-failed

[Service]
Type=oneshot
ExecStart={_record("stop", claim)} {STOP_LEASE}
ExecStart=/usr/bin/systemctl --user kill --signal=KILL {claim.name}.service
"""


def _hidden(settings: Settings) -> list[str]:
    """Return what else a job must not reach; the state's own paths matter where it is not below /home."""
    paths = ["/etc/openclaw", "/etc/systemd/user", "/run/dbus", "/run/systemd/private"]
    paths += [str(settings.jobs_dir), str(settings.plans_dir), str(settings.lock_file)]
    paths += [path for path in (os.environ.get("CREDENTIALS_DIRECTORY"), os.environ.get("XDG_RUNTIME_DIR")) if path]
    return [f"-{path}" for path in paths]  # the dash: if it is there


def _record(verb: str, claim: Claim) -> str:
    return f"{sys.executable} -I -S {records.__file__} {verb} {claim.directory}"
