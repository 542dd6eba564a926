#!/bin/bash
# Does by hand what site.yml does: all hosts at once, one connection each, and tokens when the broker is there.
#
#   converge.sh FOLDER    has ssh_config, and a folder for each host with what host.sh needs there
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
cd "$1"
umask 077

reach() {
  ssh -F ssh_config -o ControlMaster=auto -o ControlPersist=60s -o "ControlPath=$PWD/%n.sock" "$@"
}

# Runs a function for several hosts at once.
each() {
  local action=$1 host pids=() failed=0
  for host in "${@:2}"; do
    "$action" "$host" &
    pids+=($!)
  done
  for pid in "${pids[@]}"; do wait "$pid" || failed=1; done
  return $failed
}

prepare() {
  tar -c -C "$PWD/$1" . -C "$here" host.sh |
    reach "$1" "sudo sh -c 'cd \$(mktemp -d) && tar -x && exec sh host.sh'" > "$1.tokenless"
}

deliver() {
  sed 's/.*/^& /' "$1.tokenless" | grep -f - tokens | reach "$1" "sudo sh -c '
    umask 077
    while read -r agent token; do
      cd /etc/openclaw/agents/\$agent
      printf %s \"\$token\" > .worker-token
      chown \"\$agent:\$agent\" .worker-token
      chmod 0400 .worker-token
      mv .worker-token worker-token
      systemctl --user --machine=\"\$agent@\" restart openclaw-runner.service
    done'"
}

hosts=$(dirname -- */role)
broker=$(dirname "$(grep -lx broker -- */role)")
# shellcheck disable=SC2086  # names, one word each
each prepare $hosts

tokenless=$(cat -- *.tokenless)
if [ -n "$tokenless" ]; then
  echo "$tokenless" | reach "$broker" "sudo sh -c '
    while read -r agent; do
      echo \"\$agent \$(openclaw-broker token mint \"\$agent\" --role worker --replace < /dev/null)\"
    done'" > tokens
  # shellcheck disable=SC2046
  each deliver $(find . -name '*.tokenless' -size +0 -printf '%f\n' | sed 's/\.tokenless$//')
  rm tokens
fi
