"""The unit files of a job: what ends it, and what it may see. Pure; measured on systemd 252 and 257.

They are files in the manager's runtime directory and not D-Bus properties, because systemd 252 forgets the flags of a
transient unit's commands, and with them the commands, at the next daemon-reload: the job's end went unrecorded.

What a job may see is not said here: its script starts it behind the walls of ``walls``. systemd's own directives for
that are left out on systemd 252 without a word, and put the recorders behind the walls as well.
"""

import sys

from runner_app import records
from runner_app.execution import TERM_SECONDS, deadman_seconds, environment
from runner_app.handlers.output import STDERR, STDOUT
from runner_app.job import Command
from runner_app.journal import Claim
from runner_app.outcome import STOP_LEASE
from runner_app.settings import Settings
from runner_app.supervisor import SCRIPT

JOBS_SLICE = "jobs.slice"

# Namespaces and mounts are for bubblewrap; the job has no capability left to use them with. RestrictSUIDSGID= must not
# stand here: it takes openat2 away, which bubblewrap 0.12 needs. What io_uring does, no filter of system calls sees.
_RULES = """\
NoNewPrivileges=yes
LockPersonality=yes
RestrictRealtime=yes
RestrictNamespaces=user pid mnt ipc
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
SystemCallFilter=@system-service @mount
SystemCallFilter=~io_uring_setup io_uring_enter io_uring_register
SystemCallErrorNumber=EPERM
SystemCallArchitectures=native
LimitCORE=0
"""

# When an agent's memory or time is short, the kernel ends and delays its jobs and spares its runner.
_RANK = """\
OOMPolicy=stop
OOMScoreAdjust=1000
Nice=10
"""


def job_unit(claim: Claim, command: Command, settings: Settings) -> str:
    """Return the service that runs a job; its program is the shell script in the job's directory."""
    directory = claim.directory
    variables = environment(str(settings.workspace), claim).items()
    return f"""\
[Unit]
Description=Job {claim.job.id}, delivery {claim.job.lease_epoch}

[Service]
Slice={JOBS_SLICE}
Type=exec
ExecStartPre={_record("started", claim)}
ExecStart=/bin/sh
ExecStopPost={_record("ended", claim)}
StandardInput=file:{directory / SCRIPT}
StandardOutput=append:{directory / STDOUT}
StandardError=append:{directory / STDERR}
UMask=0077
KillMode=control-group
TimeoutStopSec={TERM_SECONDS}
RuntimeMaxSec={command.timeout_ms}ms
Environment={" ".join(f"{key}={value}" for key, value in variables)}
UnsetEnvironment=XDG_RUNTIME_DIR DBUS_SESSION_BUS_ADDRESS SSH_AUTH_SOCK
{_RANK}{_RULES if command.walled else ""}{_limits(settings)}"""


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


def _limits(settings: Settings) -> str:
    """Return the limits of the job alone; LimitNPROC counts all of the user's processes, the runner's too."""
    lines = []
    if own := settings.job_limits:
        lines += [f"MemoryMax={own.memory}", "MemorySwapMax=0", f"CPUQuota={own.cpu}%", f"TasksMax={own.tasks}"]
    if together := settings.jobs_limits:
        lines += [f"LimitNPROC={together.tasks}"]
    return "".join(f"{line}\n" for line in lines)


def _record(verb: str, claim: Claim) -> str:
    return f"{sys.executable} -I -S {records.__file__} {verb} {claim.directory}"
