#!/bin/sh
# Makes runs/ and expected.json anew. Only dlrunner 0.1.0, at the commit that README.md names, knows these commands.
# From the repository's root: sh tests/old_runs/make.sh
set -eu
root=$PWD here=$PWD/tests/old_runs work=$(mktemp -d)
PYTHON=${PYTHON:-python}
export PYTHONPATH="$root/src:$root" DLRUNNER_CACHE="$work/cache" DLRUNNER_OFFLINE=1 OMP_NUM_THREADS=1
unset DLRUNNER_DATA
cp -r "$here"/inputs/. "$work"
cd "$work"

# A backbone that compresses: three values, most of them 0.
"$PYTHON" - <<'EOF'
import torch
from safetensors.torch import save_file

from dlrunner.models.squeezenet import SqueezeNet

random = torch.Generator().manual_seed(0)
weights = SqueezeNet().state_dict()
for name, weight in weights.items():
    density = min(1, 8 / max(1, weight[0].numel()))
    draw = torch.rand(weight.shape, generator=random)
    weights[name] = ((draw < density / 2).float() - (draw > 1 - density / 2).float()) * 0.5
save_file({name: weight.contiguous() for name, weight in weights.items()}, "backbone.safetensors")
EOF

dlrun() { "$PYTHON" -m dlrunner "$@" log.progress=none; }
plain="log.pictures=false log.report=false"
standin="data.source=stand-in"
recurrent="model.embedding=8 model.hidden=12 model.layers=1 data.min_freq=1"
language="$recurrent batch_size=4 optim.lr=0.05 task.bptt=10 task.valid_batch_size=4"
squeezenet="model.backbone=squeezenet1_1 model.weights=backbone.safetensors model.xtra_fc=[] model.ps=0 freeze_to=-1"
ratings="task=collab data.path=my.csv model.factors=4 epochs=4 optim.lr=0.05"

dlrun $ratings model=net                                                        # with its plots
dlrun $ratings ensemble=2 $plain
dlrun -m $ratings model=dot,dot_bias seed=0,1 $plain                            # a sweep of four
dlrun task=movielens $standin data.valid=0.97 model.factors=2 epochs=1 batch_size=512 optim=sgd optim.lr=5 $plain
dlrun task=tabular data.path=flats.csv data.target=price "data.categorical=[city,rooms]" "data.continuous=[area]" \
    data.id=nr "model.hidden=[8,4]" batch_size=16 optim.lr=0.05 epochs=4 $plain
dlrun task=rossmann $standin data.sample=1000 "model.hidden=[8,4]" epochs=1 $plain
dlrun task=lm data.path=texts.txt $language epochs=3 $plain
dlrun task=imdb-lm $standin data.sample=60 data.sample_valid=20 $language model.cell=qrnn epochs=2 $plain
dlrun task=text data.path=reviews.csv data.text=review data.target=sentiment $recurrent batch_size=16 \
    optim.lr=0.05 epochs=4 log.pictures=false
dlrun task=imdb-sentiment $standin data.sample=60 data.sample_valid=20 data.sample_test=10 \
    batch_size=16 optim.lr=0.05 epochs=2 model.encoder="$(echo runs/imdb-lm/*)" $plain
dlrun task=image data.path=shapes data.size=64 $squeezenet epochs=2 batch_size=8 task.tta=2 $plain
dlrun task=dogbreeds $standin data.size=64 data.sample=64 data.sample_valid=16 $squeezenet \
    task.augment=false task.precompute=true epochs=1 $plain
"$PYTHON" -m dlrunner reproduce tiny --seeds 2 --out runs/claims/tiny --set log.pictures=false log.report=false

# What is shown and answered from is kept, without what this machine adds; weights are compressed.
"$PYTHON" - <<'EOF'
import lzma
from pathlib import Path

from PIL import Image

runs, work = Path("runs"), f"{Path.cwd()}/"
(runs / "latest").unlink()
for path in sorted(path for path in runs.rglob("*") if path.is_file()):
    unneeded = path.name in ("report.html", "run.log", ".lock", "output.txt") or "claims/tiny-" in f"{path}"
    if unneeded or (path.name == "best.pt" and "model=net" not in f"{path}"):
        path.unlink()
    elif path.suffix == ".pt":
        path.with_name(f"{path.name}.xz").write_bytes(lzma.compress(path.read_bytes(), preset=9 | lzma.PRESET_EXTREME))
        path.unlink()
    elif path.suffix == ".png":
        with Image.open(path) as picture:
            small = picture.convert("RGB").resize((picture.width // 4, picture.height // 4))
        small.quantize(8).save(path, optimize=True)
    else:
        lines = path.read_text().replace(work, "").splitlines(keepends=True)
        path.write_text("".join(lines[:60] if path.name == "predictions.csv" else lines))
EOF
rm -rf "$here/runs"
cp -r runs "$here/runs"
find "$here/runs" -type d -empty -delete
find "$here/runs" -type d -empty -delete
cd "$root"
"$PYTHON" -c "from tests.test_old_runs import write_expected; write_expected()"
rm -rf "$work"
