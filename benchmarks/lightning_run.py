"""Train in Lightning's Trainer what `dlrun` trains in its own loop: the same modules, loss, batches and schedule.

    python -m benchmarks.lightning_run task=movielens optim=adamw epochs=3
    python -m benchmarks.lightning_run --log task=movielens optim=adamw epochs=3

Takes dlrun's overrides; prints one JSON object with the seconds and the metrics of every epoch. `setup-lightning.sh`
makes a folder with Lightning, which belongs into PYTHONPATH.

What to know when comparing another library with it:

* The configuration is composed and checked by dlrunner, and its task, model and optimizer are the ones that dlrun
  makes; only what calls them is Lightning's. The metrics are therefore dlrunner's own, to the last digit in float32;
  in bfloat16 Lightning's autocast casts a weight anew each time it is used, which rounds otherwise.
* The batches are those of the task's loaders, which favours Lightning: its users have torch's DataLoader.
* The training loss is not kept, which favours it as well; `--log` has `self.log` average it, as dlrunner's record does.
* Gradients are clipped by torch itself: Lightning refuses to clip for fused optimizers in mixed precision.
* No logger, no checkpoints, no progress bar, no sanity check of the validation.
* The time of an epoch is that of training and validation; what Lightning does between two epochs is left out.
"""

# mypy: disable-error-code="import-not-found, misc"

from __future__ import annotations

import argparse
import json
import logging
import resource
import time
import warnings
from collections.abc import Sequence
from typing import Any

# Lightning advises users of DataLoaders, and uses what torch is about to replace.
warnings.filterwarnings("ignore")

import lightning  # noqa: E402
import torch  # noqa: E402
from lightning.pytorch import LightningModule, Trainer  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.optim import Optimizer  # noqa: E402
from torch.optim.lr_scheduler import LRScheduler  # noqa: E402

from benchmarks.measuring import megabytes, settled  # noqa: E402
from dlrunner.config.plan import Plan  # noqa: E402
from dlrunner.errors import ConfigError  # noqa: E402
from dlrunner.metrics import exact_sum  # noqa: E402
from dlrunner.model import Model, forward_pass  # noqa: E402
from dlrunner.schedules import Phase  # noqa: E402
from dlrunner.system.seeding import seed_everything  # noqa: E402
from dlrunner.task import Batch, Loader, Task  # noqa: E402

Row = dict[str, Any]
PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed"}
ACCELERATORS = {"cpu": "cpu", "cuda": "gpu", "mps": "mps"}


class Curve(LRScheduler):
    """A phase's schedule as one of torch's, stepped after every batch."""

    def __init__(self, optimizer: Optimizer, phase: Phase, num_steps: int) -> None:
        self.phase, self.num_steps = phase, num_steps
        super().__init__(optimizer)

    def get_lr(self) -> list[float | Tensor]:
        """Return the rates of the next step, and set its momentum."""
        progress = min(self.last_epoch / self.num_steps, 1.0)
        if self.phase.curves.momentum is not None:
            momentum = self.phase.curves.momentum(progress)
            for group in self.optimizer.param_groups:
                if "betas" in group:
                    group["betas"] = (momentum, *group["betas"][1:])
                else:
                    group["momentum"] = momentum
        rates = self.phase.lr if len(self.phase.lr) > 1 else self.phase.lr * len(self.optimizer.param_groups)
        return [rate * self.phase.curves.lr(progress) for rate in rates]


class Lesson(LightningModule):
    """A task and a model of dlrunner's as a module of Lightning's, with a clock."""

    def __init__(self, checked: Plan, task: Task, model: Model, clip: float | None, is_logged: bool) -> None:
        super().__init__()
        self.plan, self.task, self.model, self.clip, self.is_logged = checked, task, model, clip, is_logged
        self.rows: list[Row] = []
        self.begun = self.trained = 0.0
        self.hidden: Any = None
        self.num_examples = 0

    def configure_optimizers(self) -> Any:
        """Return dlrunner's optimizer and the schedule."""
        optimizer = self.plan.make_optimizer(self.model.layer_groups())
        # dlrunner calls torch's step past its hooks; Lightning and schedulers wrap it, as in any program.
        vars(optimizer).pop("step", None)
        (phase,) = self.plan.phases
        curve = Curve(optimizer, phase, phase.epochs * len(self.task.batches("train", 0, phase)))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": curve, "interval": "step"}}

    def configure_gradient_clipping(self, optimizer: Optimizer, *_: Any, **__: Any) -> None:
        """Clip as dlrunner's loop does."""
        if self.clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)

    def train_dataloader(self) -> Loader:
        """Return this epoch's batches; the epoch begins here."""
        self.begun = time.perf_counter()
        return self.task.batches("train", self.current_epoch, self.plan.phases[0])

    def val_dataloader(self) -> Loader:
        """Return the validation batches."""
        return self.task.batches("valid", 0, self.plan.phases[0])

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Move a batch."""
        return batch.to(device)

    def on_train_epoch_start(self) -> None:
        """Forget the state of a recurrent net."""
        self.hidden = None
        self.num_examples = 0

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """Return the loss with the model's own penalties."""
        self.num_examples += len(batch.targets)
        if batch.rate != 1:
            for group in self.trainer.optimizers[0].param_groups:
                group["lr"] *= batch.rate
        outputs, self.hidden, penalty = forward_pass(self.model, *batch.inputs, hidden=self.hidden)
        loss = self.task.loss(outputs, batch.targets)
        if self.is_logged:
            self.log("train/loss", loss, on_step=False, on_epoch=True, batch_size=len(batch.targets))
        return loss if penalty is None else loss + penalty

    def on_validation_epoch_start(self) -> None:
        """Begin to count."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        self.trained = time.perf_counter()
        self.hidden = None
        self.metrics = self.task.metrics()
        self.count, self.total = 0, torch.zeros((), dtype=torch.float64, device=self.device)

    def validation_step(self, batch: Batch, index: int) -> None:
        """Count a batch, as exactly as dlrunner does."""
        outputs, self.hidden, _ = forward_pass(self.model, *batch.inputs, hidden=self.hidden)
        self.total = self.total + exact_sum(self.task.loss(outputs, batch.targets)) * len(batch.targets)
        self.count += len(batch.targets)
        for metric in self.metrics.values():
            metric.update(outputs, batch.targets)

    def on_validation_epoch_end(self) -> None:
        """Write down the metrics of the epoch; it ends here."""
        values = {"loss": float(self.total) / self.count, **{k: m.compute() for k, m in self.metrics.items()}}
        self.log_dict({f"valid/{name}": value for name, value in values.items()})
        self.rows.append(
            {
                "metrics": {f"valid/{name}": value for name, value in values.items()},
                "seconds": time.perf_counter() - self.begun,
                "examples_per_second": self.num_examples / (self.trained - self.begun),
            }
        )


def train(words: Sequence[str], is_logged: bool) -> list[Row]:
    """Compose, build and train, and return a row for each epoch.

    Args:
        words: dlrun's overrides.
        is_logged: Lightning keeps the training loss.

    Raises:
        ConfigError: the configuration is not supported here.
    """
    checked = settled(words)
    seed, (phase, *further) = checked.settings.seed, checked.phases
    own = checked.build_trainer(seed)  # checks its settings, and prepares the task
    own.use_threads(checked.batch_size)
    if further or own.l1 or own.accumulate != 1 or own.early_stopping or own.compile or own.precision not in PRECISIONS:
        raise ConfigError("only clip, one phase and fp32 or bf16 are compared with Lightning")
    task = checked.build_task(checked.build_data(), seed)
    task.notes()  # reads the data, as a run does before it seeds
    seed_everything(seed)
    model = checked.build_model(task.dims)
    model.load_pretrained()
    own.prepare(task, model, lambda line: None)
    lesson = Lesson(checked, task, model, own.clip, is_logged).train()
    for group in list(model.layer_groups())[: phase.freeze_to]:
        group.requires_grad_(False)
        for module in group.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()  # Lightning leaves it in evaluation mode
    trainer = Trainer(
        max_epochs=phase.epochs,
        accelerator=ACCELERATORS[checked.device.type],
        devices=1,
        precision=PRECISIONS[own.precision],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        reload_dataloaders_every_n_epochs=1,
    )
    trainer.fit(lesson)
    rows: list[Row] = lesson.rows
    return rows


def measurements(rows: Sequence[Row]) -> dict[str, Any]:
    """Return the measurements of a run for the benchmarks."""
    return {
        "library": "Lightning",
        "version": lightning.__version__,
        "threads": torch.get_num_threads(),
        "seconds_per_epoch": [row["seconds"] for row in rows],
        "examples_per_second": [row["examples_per_second"] for row in rows],
        "valid_mse": [row["metrics"]["valid/loss"] for row in rows],
        "metrics": [row["metrics"] for row in rows],
        "peak_memory_mb": round(megabytes(resource.getrusage(resource.RUSAGE_SELF)), 1),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("overrides", nargs="*", help="as for dlrun")
    parser.add_argument("--log", action="store_true", help="keep the training loss, by self.log")
    given = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    print(json.dumps(measurements(train(given.overrides, given.log))))
