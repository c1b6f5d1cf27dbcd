#!/usr/bin/env bash
# Makes .venv with everything that running and developing Easel needs; does nothing when current.
#
#   PYTHON=python3.12   interpreter to use (3.11 or newer; default: the first that fits)
#   TORCH=cpu|cuda|none override of the choice of the torch build (default: cuda where nvidia-smi works)
#   TORCH_INDEX=URL     where the CPU build comes from when no configured find-links holds one
set -euo pipefail
cd "$(dirname "$0")/../.."

TORCH_VERSION=2.13.0
TORCH_INDEX=${TORCH_INDEX:-https://download.pytorch.org/whl/cpu}
MEMBERS=(protos services/kit services/gateway services/billing services/scheduler services/gpu-worker deploy/local)

fail() { echo "setup: $*" >&2; exit 1; }

pick_python() {
  for name in ${PYTHON:-python3 python3.13 python3.12 python3.11 python3.14}; do
    if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      command -v "$name"; return
    fi
  done
  fail "Python 3.11 or newer is needed (set PYTHON=/path/to/python)"
}

pick_torch() {
  if [ -n "${TORCH:-}" ]; then echo "$TORCH"
  elif nvidia-smi >/dev/null 2>&1; then echo cuda
  else echo cpu; fi
}

install_torch() { # $1: cpu or cuda
  if [ "$1" = cuda ]; then
    .venv/bin/python -m pip install -q "torch==$TORCH_VERSION"
  elif [ "$(uname -s)" = Darwin ]; then
    .venv/bin/python -m pip install -q --no-deps "torch==$TORCH_VERSION" # PyPI's is the CPU and MPS build
  else
    # PyPI's Linux build carries gigabytes of CUDA: take a +cpu build, or stop loudly
    .venv/bin/python -m pip install -q --no-deps --no-index "torch==$TORCH_VERSION" 2>/dev/null ||
      .venv/bin/python -m pip install -q --no-deps --index-url "$TORCH_INDEX" "torch==$TORCH_VERSION" ||
      fail "no CPU build of torch $TORCH_VERSION: neither in pip's find-links nor at $TORCH_INDEX (or set TORCH=cuda)"
  fi
}

torch=$(pick_torch)
case $torch in cpu | cuda | none) ;; *) fail "TORCH must be cpu, cuda or none, not '$torch'" ;; esac
python=$(pick_python)
state=$({ echo "$torch $python"; cat constraints.txt requirements-dev.in deploy/scripts/setup.sh; cat "${MEMBERS[@]/%//pyproject.toml}"; pwd; } | cksum)
if [ -f .venv/easel-setup ] && [ "$(cat .venv/easel-setup)" = "$state" ]; then exit 0; fi

echo "setup: $("$python" --version), torch build: $torch" >&2
[ -x .venv/bin/python ] && .venv/bin/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
  { rm -rf .venv; "$python" -m venv .venv || fail "python -m venv failed (Debian: apt-get install python3-venv)"; }

echo "setup: installing torch $TORCH_VERSION" >&2
[ "$torch" = none ] || install_torch "$torch"

members=()
for member in "${MEMBERS[@]}"; do
  if [ "$torch" = none ] && [ "$member" = services/gpu-worker ]; then continue; fi
  members+=(-e "$member")
done
echo "setup: installing the services and tools" >&2
if .venv/bin/python -m pip install -q -c constraints.txt uv 2>/dev/null; then
  .venv/bin/uv pip install -q --python .venv/bin/python -c constraints.txt -r requirements-dev.in "${members[@]}"
else
  echo "setup: uv does not install here, using pip" >&2
  grep -vx uv requirements-dev.in > .venv/requirements-dev.txt
  .venv/bin/python -m pip install -q -c constraints.txt -r .venv/requirements-dev.txt "${members[@]}"
fi
.venv/bin/python -m compileall -q -j 0 services deploy protos/gen >/dev/null || true
echo "$state" > .venv/easel-setup
echo "setup: done" >&2
