"""Texts on the command line need quotation marks only where it would not be clear what is meant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from dlrunner.cli import main
from dlrunner.cli.compose import compose
from dlrunner.cli.conf_paths import with_paths
from dlrunner.errors import ConfigError
from tests.conftest import QUICK

READ: dict[str, Any] = {
    "data.drop=[größe,naïve]": ["größe", "naïve"],
    "data.drop=[a,日本語, naïve col]": ["a", "日本語", "naïve col"],
    "data.drop=[Price (EUR),Price [EUR],a=b,it's,x;y]": ["Price (EUR)", "Price [EUR]", "a=b", "it's", "x;y"],
    'data.drop=["a,b",größe]': ["a,b", "größe"],
    "data.drop=[[größe,b],c]": [["größe", "b"], "c"],
    "data.drop=[größe,1,true,null]": ["größe", 1, True, None],
    "data.target=Größe (m²)": "Größe (m²)",
    "data.target=a=b": "a=b",
    "note=größer, in m² (vielleicht)": "größer, in m² (vielleicht)",
}


@pytest.mark.parametrize("word", READ)
def test_a_text_that_hydra_cannot_read_is_read_as_it_is_typed(word: str) -> None:
    config = compose(["task=tabular", *with_paths([word])])
    for name in word.partition("=")[0].split("."):
        config = config[name]
    assert config == READ[word]


REFUSED = {
    "data.target=größe,b": """one text with a comma goes in quotation marks: 'data.target="größe,b"'""",
    "data.drop=[größe,": "a list is [a,b]",
    "data.drop=[größe,]": """'data.drop=["a,b",c]'""",
    "data.target=choice(größe,b)": "goes in quotation marks",
    "data.größe=1": "conf/experiment",
    "task.class_weights={größe: 5}": "conf/experiment",
}


@pytest.mark.parametrize("word", REFUSED)
def test_what_is_not_clear_is_refused_with_what_to_type(word: str) -> None:
    with pytest.raises(ConfigError) as refused:
        compose(["task=tabular", word])
    assert REFUSED[word] in str(refused.value)


@pytest.mark.parametrize("name", ["init", "data.path"])
def test_a_path_with_commas_that_is_not_there_is_one_path(name: str, here: Path) -> None:
    path = "runs/tabular/data.target=y,epochs=2-86f08224"
    config = compose(["task=tabular", *with_paths([f"{name}={path}"])])
    assert (config["init"] if name == "init" else config["data"]["path"]) == path
    assert with_paths(["-m", "init=runs/a,runs/b"]) == ["-m", "init=runs/a,runs/b"]
    assert with_paths(["data.path=${oc.env:HOME}/my.csv"]) == ["data.path=${oc.env:HOME}/my.csv"]


def test_columns_of_any_letters_train_and_are_replayed(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = range(40)
    columns = {"größe (m²)": rows, "naïve": rows, "a=b": rows, "läge": ["ü", "ö"] * 20, "preis": [2 * x for x in rows]}
    pd.DataFrame(columns).to_csv("my.csv", index=False)
    words = ["task=tabular", "data.path=my.csv", "data.target=preis", "data.continuous=[größe (m²),a=b]"]
    assert main([*words, "data.categorical=[läge]", "epochs=1", "task.baseline=false", *QUICK]) == 0
    assert main(["replay", "runs/latest"]) == 0
    assert "identical" in capsys.readouterr().out
    assert main(["-m", *words, "data.categorical=[läge]", "epochs=1,2", "task.baseline=false", *QUICK]) == 0
