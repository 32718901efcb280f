#!/bin/sh
# Put Lightning into a folder, for PYTHONPATH beside the project's own environment:  setup-lightning.sh FOLDER
# PYTHON names the interpreter of that environment (default: .venv's).
set -eu

if [ $# -ne 1 ]; then
    echo "usage: $0 FOLDER" >&2
    exit 2
fi
folder=$1
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-$here/../.venv/bin/python}

"$python" -m pip install --no-deps --target "$folder" -r "$here/requirements-lightning.txt"
PYTHONPATH="$folder" "$python" -W ignore -c 'import lightning.pytorch, torch; print("Lightning", lightning.__version__, "torch", torch.__version__)'
