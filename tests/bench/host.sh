#!/bin/sh
# The part of converge.sh that runs on a host, as root, in the folder it was sent with:
#
#   role          broker or runner
#   release       name and SHA-256 of the release in release.tgz
#   settings.tar  configuration files and units, as they belong below /
#   agents        name, memory, cpu and tasks of each agent, a line each
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
  apt-get install -qq -y --no-install-recommends nftables sudo unattended-upgrades
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
  systemctl restart ssh.service systemd-journald.service
  for timer in apt-daily.timer apt-daily-upgrade.timer; do
    [ "$(systemctl is-enabled $timer)" = masked ] || run $timer
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
    (umask 077 && openclaw-broker token mint operator --role bot > /etc/openclaw/operator-token)
}

install_agent() {
  agent=$1
  id "$agent" > /dev/null 2>&1 || {
    useradd --create-home --user-group --shell /bin/bash --groups openclaw-agents --comment agent "$agent"
    chmod 0700 "/home/$agent"
  }
  slice=/etc/systemd/system/user-$(id -u "$agent").slice.d
  mkdir -p "$slice" "/opt/openclaw/agents/$agent"
  printf '%s\n' '[Slice]' "MemoryMax=$2" MemorySwapMax=0 "CPUQuota=$3" "TasksMax=$4" > "$slice/50-openclaw.conf"
  ln -sfn "$release" "/opt/openclaw/agents/$agent/current"
}

start_agent() {
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
