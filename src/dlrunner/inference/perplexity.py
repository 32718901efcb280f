"""The perplexity of a finished language model on its own data, with a neural cache and n-grams."""

from __future__ import annotations

import pandas as pd
import torch

from dlrunner.config.auto_values import with_values
from dlrunner.config.plan import plan
from dlrunner.errors import ConfigError
from dlrunner.inference.models import load_models
from dlrunner.inference.plugins import without_trackers
from dlrunner.prediction_table import with_notes
from dlrunner.runs.directory import recorded_identity
from dlrunner.runs.reader import FinishedRun, shorter
from dlrunner.system.cpu_tuning import keep_freed_memory
from dlrunner.tasks.language.task import LanguageModeling


@torch.inference_mode()
def perplexity(
    finished: FinishedRun,
    *,
    cache: int = 2000,
    ngram: int = 4,
    checkpoint: str | None = None,
    data_dir: str | None = None,
) -> pd.DataFrame:
    """Return the perplexity of a run's reported words, alone and interpolated; with the precision of the run.

    Args:
        finished: a run of a language model.
        cache: number of words that the cache remembers; 0: no cache.
        ngram: length of the longest n-grams; 0: none.
        checkpoint: other weights: last.pt, best.pt.
        data_dir: the data folder; None: that of the run.

    Raises:
        ConfigError: it is not a finished run of a language model, or the data is not that of the run.
        DataError: the data is missing or damaged.
    """
    _, state, models = load_models(finished, checkpoint)
    config = with_values(without_trackers(finished.config), (finished.summary or {}).get("auto") or {})
    checked = plan({**config, **({"data_dir": data_dir} if data_dir else {})})
    data = checked.build_data()
    task = checked.build_task(data, checked.settings.seed)
    if data is None or not isinstance(task, LanguageModeling):
        raise ConfigError(f"{shorter(finished.path)} is not a language model: only one has a perplexity")
    trainer = checked.build_trainer(checked.settings.seed)
    trainer.use_threads(checked.batch_size)
    keep_freed_memory()
    recorded, identity = (recorded_identity(finished.path) or {}).get("data"), data.identity()
    if recorded is not None and not recorded.startswith(identity.digest or identity.sha256):
        raise ConfigError(f"the data is no longer that of {shorter(finished.path)}")
    if list(task.table.vocabulary.words) != list(state["words"]):
        raise ConfigError(f"the data is no longer that of {shorter(finished.path)}: it has another vocabulary")
    with trainer.autocast():
        table, note = task.interpolated([model.to(checked.device) for model in models], cache, ngram)
    return with_notes(table, [note])
