#!/usr/bin/env bash
# Compiles constraints.txt for all platforms, without addresses. torch is left out: setup.sh chooses it.
set -euo pipefail
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
echo "torch ; sys_platform == 'never'" > "$work/overrides.txt"
# what torch itself needs, since it is installed without its dependencies
printf '%s\n' sympy networkx jinja2 filelock fsspec setuptools > "$work/torch-needs.in"
printf 'easel-kit @ file://%s/services/kit\neasel-protos @ file://%s/protos\n' "$PWD" "$PWD" > "$work/members.in"
.venv/bin/uv pip compile -q --universal --python-version 3.11 --no-header --no-annotate --no-emit-index-url "$@" \
  --overrides "$work/overrides.txt" --no-emit-package easel-kit --no-emit-package easel-protos \
  protos/pyproject.toml services/*/pyproject.toml deploy/local/pyproject.toml requirements-dev.in \
  "$work/torch-needs.in" "$work/members.in" -o "$work/constraints.txt"
grep -v '^torch==' "$work/constraints.txt" > constraints.txt
