#!/usr/bin/env bash
# Makes a folder with all that training needs on a machine without a network, but for JAX or PyTorch
# and what is usually installed with them: wheels, this package, and a data set, every file of 60 MB
# at most. Needs a network, and a Python in which this package runs (PYTHON=...).
#   tools/offline_bundle.sh OUT --data DIR [--dataset NAME]
# Carry OUT/bundle over, then: bash bundle/install.sh
set -euo pipefail

usage() { echo "usage: tools/offline_bundle.sh OUT --data DIR [--dataset NAME]. Received: $*" >&2; exit 2; }

ROOT=$(cd "$(dirname "$0")/.." && pwd)
PYTHON=${PYTHON:-python3}
PYTHONS=${PYTHONS:-3.11 3.12}
out="" data="" dataset=cifar100
arguments=("$@")
while [ $# -gt 0 ]; do
  case $1 in
    --data) [ $# -gt 1 ] || usage "${arguments[@]}"; data=$2; shift 2 ;;
    --dataset) [ $# -gt 1 ] || usage "${arguments[@]}"; dataset=$2; shift 2 ;;
    -*) usage "${arguments[@]}" ;;
    *) [ -z "$out" ] || usage "${arguments[@]}"; out=$1; shift ;;
  esac
done
[ -n "$out" ] && [ -n "$data" ] || usage "${arguments[@]}"

bundle=$out/bundle
[ ! -e "$bundle" ] || { echo "The bundle must not exist yet. Received: $bundle" >&2; exit 2; }
mkdir -p "$bundle/wheels" "$bundle/data/$dataset"

# The pinned versions; KerasHub's other dependencies are not imported, or lie with JAX already.
for name in keras keras-hub optree tomli_w; do
  pin=$(grep -E "^$name==" "$ROOT/constraints.txt")
  for version in $PYTHONS; do
    $PYTHON -m pip download -q --no-deps --only-binary=:all: --python-version "$version" \
      --platform manylinux2014_x86_64 --platform manylinux_2_28_x86_64 --platform any \
      -d "$bundle/wheels" "$pin"
  done
done
# From a copy: setuptools leaves a folder `build` behind.
source=$(mktemp -d)
trap 'rm -rf "$source"' EXIT
(cd "$ROOT" && tar cf - --exclude='*/__pycache__' pyproject.toml README.md LICENSE MANIFEST.in lsmha_keras zoo tuning) |
  tar xf - -C "$source"
$PYTHON -m pip wheel -q --no-deps -w "$bundle/wheels" "$source"

(cd "$ROOT" && $PYTHON - "$dataset" "$data" "$bundle/data/$dataset") <<'PYTHON'
import pathlib
import sys

from lsmha_keras.data.open_dataset import open_dataset
from lsmha_keras.data.sources.npz import write_npz_parts

name, data_dir, directory = sys.argv[1:]
for base in ("train", "test"):
    write_npz_parts(open_dataset(name, base, data_dir), pathlib.Path(directory), base)
PYTHON

cp "$ROOT/tools/install.sh" "$bundle/install.sh"
(cd "$bundle" && find . -type f ! -name checksums.sha256 -print0 | sort -z | xargs -0 sha256sum >checksums.sha256)
too_large=$(find "$bundle" -type f -size +60000000c)
[ -z "$too_large" ] || { echo "Files must not be larger than 60 MB. Received: $too_large" >&2; exit 1; }
du -ah "$bundle" | sort -k2
# What many clusters take at once: the largest file first, each into the first transfer with room.
find "$bundle" -type f -printf '%s\n' | sort -rn | awk '
  { for (i = 1; i <= n && full[i] + $1 > 2^26; i++); if (i > n) n = i; full[i] += $1 }
  END { print n " transfers of at most 64 MiB" }'
