#!/bin/sh
# The part of converge.sh that runs on a host, as root, in the folder it was sent with:
#
#   role          broker or runner
#   release       name and SHA-256 of the release in release.tgz
#   packages      names for apt-get install
#   settings.tar  configuration files and units, as they belong below /
#   agents        name, memory, cpu, tasks and disk of each agent, a line each
#
# Prints the agents that have no token yet.
set -eu
umask 022
role=$(cat role)
read -r name sha256 < release
release=/opt/openclaw/releases/$role/$name

install_packages() {
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  xargs apt-get install -qq -y --no-install-recommends < packages
}

install_release() {
  [ ! -d "$release" ] || return 0
  echo "$sha256  release.tgz" | sha256sum --check --quiet
  mkdir -p "$release.partial"
  tar -xz --no-same-owner -f release.tgz -C "$release.partial"
  python3 -m compileall -q --invalidation-mode unchecked-hash -s "$release.partial" -p "$release" "$release.partial/lib"
  chmod -R a-w "$release.partial"
  sync
  mv "$release.partial" "$release"
}

# Enables units and has them run as their files say.
run() {
  systemctl enable --quiet "$@"
  systemctl restart "$@"
}

secure() {
  systemctl daemon-reload
  run openclaw-firewall.service
  sshd -t
  systemctl restart ssh.service systemd-journald.service systemd-sysctl.service
  for unit in apt-daily.timer apt-daily-upgrade.timer systemd-timesyncd.service; do
    case "$(systemctl is-enabled $unit 2> /dev/null)" in
      masked | not-found | '') ;; # the administrator's decision, or none of this host's
      *) run $unit ;;
    esac
  done
}

install_broker() {
  id openclaw-broker > /dev/null 2>&1 ||
    useradd --system --home-dir /var/lib/openclaw-broker --no-create-home --shell /usr/sbin/nologin openclaw-broker
  mkdir -p /opt/openclaw/broker
  ln -sfn "$release" /opt/openclaw/broker/current
  systemctl stop openclaw-broker.service
  run openclaw-broker.socket
  run openclaw-broker.service
  [ -s /etc/openclaw/operator-token ] ||
    (umask 077 && openclaw-broker token mint operator --role admin > /etc/openclaw/operator-token)
}

install_agent() {
  agent=$1
  id "$agent" > /dev/null 2>&1 || {
    useradd --create-home --user-group --shell /bin/bash --groups openclaw-agents --comment agent "$agent"
    chmod 0700 "/home/$agent"
  }
  units=/etc/systemd/system
  uid=$(id -u "$agent")
  mkdir -p "$units/user-$uid.slice.d" "$units/user@$uid.service.d" "/opt/openclaw/agents/$agent"
  printf '%s\n' '[Slice]' "MemoryMax=$2" MemorySwapMax=0 "CPUQuota=$3" "TasksMax=$4" \
    > "$units/user-$uid.slice.d/50-openclaw.conf"
  printf '%s\n' '[Unit]' "RequiresMountsFor=/home/$agent/workspace" > "$units/user@$uid.service.d/50-openclaw-disk.conf"
  ln -sfn "$release" "/opt/openclaw/agents/$agent/current"
  make_disk "$agent" "$uid" "$5"
}

# The unit that mounts it is among the settings.
make_disk() {
  disk=/var/lib/openclaw/volumes/$1.ext4
  [ ! -e "$disk" ] || return 0
  mkdir -p /var/lib/openclaw
  install -d -m 0700 /var/lib/openclaw/volumes
  (umask 077 && truncate --size="$3" "$disk.partial")
  mkfs.ext4 -q -F -m 0 -E "root_owner=$2:$(id -g "$1"),assume_storage_prezeroed=1" "$disk.partial"
  mv "$disk.partial" "$disk"
}

mount_disk() {
  workspace=/home/$1/workspace
  ! mountpoint -q "$workspace" || return 0
  install -d -m 0700 -o "$1" -g "$1" "$workspace"
  systemctl start "$(systemd-escape --path --suffix=mount "$workspace")"
  chmod 0700 "$workspace"
  rmdir "$workspace/lost+found"
}

start_agent() {
  mount_disk "$1"
  loginctl enable-linger "$1"
  systemctl start "user@$(id -u "$1").service"
  systemctl --user --machine="$1@" enable --quiet openclaw-runner.service
  if [ -s "/etc/openclaw/agents/$1/worker-token" ]; then
    systemctl --user --machine="$1@" restart openclaw-runner.service
  else
    echo "$1"
  fi
}

install_runners() {
  getent group openclaw-agents > /dev/null || groupadd --system openclaw-agents
  while read -r agent; do
    # shellcheck disable=SC2086  # the fields of a line
    install_agent $agent
  done < agents
  systemctl daemon-reload
}

exec 3>&1 >&2
install_packages
tar -x -f settings.tar -C /
secure
install_release
if [ "$role" = broker ]; then
  install_broker
else
  install_runners
  while read -r agent _; do start_agent "$agent" >&3 < /dev/null; done < agents
fi
rm -r "$PWD"
