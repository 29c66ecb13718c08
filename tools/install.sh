#!/usr/bin/env bash
# Installs a bundle of tools/offline_bundle.sh: no network, seconds. PYTHON=... chooses the Python,
# in which JAX or PyTorch is installed already.
set -euo pipefail
cd "$(dirname "$0")"
PYTHON=${PYTHON:-python3}

fail() { echo "install.sh: error: $*" >&2; exit 2; }

damaged=$(sha256sum --check --quiet checksums.sha256 2>/dev/null | sed 's/: .*//' | tr '\n' ' ') || true
[ -z "$damaged" ] || fail "these files are missing or damaged; carry them over again. Received: $damaged"

tag=$($PYTHON -c 'import sys; print(f"cp{sys.version_info[0]}{sys.version_info[1]}")')
ls wheels/optree-*-"$tag"-*.whl >/dev/null 2>&1 ||
  fail "the bundle is for $(ls wheels | sed -n 's/^optree-[^-]*-\(cp[0-9]*\)-.*/\1/p' | sort -u | tr '\n' ' ')(PYTHONS=... tools/offline_bundle.sh makes another). Received: $PYTHON, $tag"

$PYTHON - <<'CHECK' || exit 2
import importlib.metadata
import re
import sys

def found(name):
    try:
        return tuple(int(n) for n in re.findall(r"\d+", importlib.metadata.version(name))[:2])
    except importlib.metadata.PackageNotFoundError:
        return None

def fail(text):
    sys.exit(f"install.sh: error: {text}")

for name, least in {"numpy": (2, 0), "h5py": (3, 11), "pillow": (10, 0)}.items():
    if found(name) is None or found(name) < least:
        fail(f"{name} >= {'.'.join(map(str, least))} is needed. Received: {found(name)}")
versions = {"jax": (0, 10), "torch": (2, 6)}
if not any(found(name) and found(name) >= least for name, least in versions.items()):
    fail(f"jax >= 0.10 or torch >= 2.6 is needed. Received: { {n: found(n) for n in versions} }")
needed = "absl-py ml_dtypes packaging regex rich sentencepiece tokenizers typing_extensions"
for name in needed.split():
    if found(name) is None:
        fail(f"{name} is needed, which the bundle does not hold. Received: a Python without it")
CHECK

wheels=(wheels/keras-*.whl wheels/keras_hub-*.whl wheels/optree-*-"$tag"-*.whl wheels/tomli_w-*.whl wheels/lsmha_keras-*.whl)
$PYTHON -m pip install -q --no-index --no-deps --no-compile --disable-pip-version-check "${wheels[@]}"
backend=$($PYTHON -c 'import importlib.util as u; print("jax" if u.find_spec("jax") else "torch")')
KERAS_BACKEND=${KERAS_BACKEND:-$backend} $PYTHON -c '
import lsmha_keras, keras_hub, tomli_w
print("installed: lsmha-keras", lsmha_keras.__version__, "with keras_hub", keras_hub.__version__)'
echo "now:"
echo "  export KERAS_BACKEND=$backend LSMHA_DATA_DIR=$PWD/data"
