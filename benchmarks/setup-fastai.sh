#!/bin/sh
# Make a virtual environment for fastai and the trees:  setup-fastai.sh VENV_DIR
# PYTHON names the interpreter to use (default: python3, measured with 3.11).
set -eu

if [ $# -ne 1 ]; then
    echo "usage: $0 VENV_DIR" >&2
    exit 2
fi
venv=$1
here=$(cd "$(dirname "$0")" && pwd)

"${PYTHON:-python3}" -m venv "$venv"
"$venv/bin/python" -m pip install torch==2.13.0
"$venv/bin/python" -m pip install -r "$here/requirements-fastai.txt"
"$venv/bin/python" -W ignore -c 'import fastai.collab, fastai.tabular.all, lightgbm, torch; print("fastai", fastai.__version__, "torch", torch.__version__)'
