#!/usr/bin/env bash
# Searches on a Ray cluster of two nodes, both on this machine, and kills a worker on the way.
#   examples/cluster.sh [STUDY [OUTPUT]]
# examples/cluster.md explains it.
set -euo pipefail

study=${1:-digits_heads}
output=${2:-runs/cluster}
port=${PORT:-6379}
folder=$(mktemp -d)
nodes=()

# The cluster answers only those who know the token.
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN
RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')

stop() {
  # `ray stop` would end every Ray on this machine. `ray start --block` ends its own node.
  for node in "${nodes[@]}"; do kill "$node" 2>/dev/null || true; done
  wait
  rm -rf "$folder"
}
trap stop EXIT

# Starts a node with room for one trial, and waits until it runs.
start_node() {
  local log=$folder/node${#nodes[@]}.log
  touch "$log"
  # On one machine, two nodes must not ask for the same ports: 0 is any free one.
  ray start "$@" --block --num-cpus 1 --num-gpus 0 --min-worker-port 0 --max-worker-port 0 \
    --dashboard-agent-listen-port 0 --object-store-memory 100000000 --disable-usage-stats \
    >"$log" 2>&1 &
  nodes+=($!)
  until grep -q "Ray runtime started" "$log"; do
    kill -0 $! 2>/dev/null || { cat "$log" >&2; exit 1; }
    sleep 0.2
  done
}

start_node --head --port "$port" --include-dashboard false --temp-dir "$folder/ray"
address=$(grep -om1 "address='[^']*" "$folder/node0.log" | cut -d"'" -f2)
start_node --address "$address"

lsmha tune "$study" --max-trials 4 --output "$output" --ray "$address" &
search=$!

# The second node's worker, once it trains: Ray names a process after its task.
raylet=$(pgrep -P "${nodes[1]}" raylet)
until worker=$(pgrep -P "$raylet" -f '^ray::trial'); do
  kill -0 "$search"
  sleep 0.1
done
kill -KILL "$worker"
echo "killed worker $worker of the second node"

wait "$search"
