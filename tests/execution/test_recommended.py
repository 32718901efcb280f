"""What a task recommends does not depend on which of its recommendations are typed."""

from __future__ import annotations

from pathlib import Path

import pytest

from dlrunner.cli.compose import compose
from dlrunner.config.auto_values import with_values
from dlrunner.config.plan import Plan, plan
from dlrunner.task import Data
from tests.conftest import flats, ratings_table
from tests.models.test_found_weights import hub, images, save  # noqa: F401

RATINGS = ("data.path=my.csv",)
TEXTS = ("data.path=texts.csv", "data.text=text")
REQUESTS = [
    ("task=tabular", "data.path=flats.csv", "data.target=price"),
    ("task=tabular", "data.path=flats.csv", "data.target=price", "model=linear"),
    ("task=collab", *RATINGS),
    ("task=collab", *RATINGS, "model=dot_bias"),
    ("task=implicit", *RATINGS),
    ("task=text", *TEXTS, "data.target=label"),
    ("task=lm", *TEXTS),
    ("task=image", "data.path=images", "data.size=32"),
]


@pytest.fixture
def tables(here: Path) -> None:
    """A table, ratings, texts."""
    flats(300).to_csv(here / "flats.csv", index=False)
    ratings_table(num_rows=2000).to_csv(here / "my.csv", index=False)
    texts = "\n".join(f"{'good' if row % 2 else 'bad'} film number {row},{row % 2}" for row in range(200))
    (here / "texts.csv").write_text(f"text,label\n{texts}\n")


@pytest.mark.usefixtures("tables", "images", "hub")
@pytest.mark.parametrize("words", REQUESTS, ids=lambda words: ",".join((words[0], *words[3:])))
def test_typing_a_recommended_value_changes_no_other(words: tuple[str, ...], here: Path) -> None:
    save("squeezenet1_1", here / "data" / "weights" / "squeezenet1_1.pt")
    asked = plan(compose(words))
    data = asked.build_data()
    recommended = decided(asked, data)
    assert {*recommended} == {*asked.undecided}
    for name, value in recommended.items():
        others = decided(plan(with_values(asked.config, {name: value})), data)
        assert {name: value, **others} == recommended, name


def decided(asked: Plan, data: Data | None) -> dict[str, object]:
    """Return the recommended values of the settings that are `auto`."""
    recommended = asked.build_task(data, asked.settings.seed).recommended(asked.by_name())
    return {name: recommended[name] for name in asked.undecided}
