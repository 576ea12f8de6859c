"""The commands about one scenario and one model."""

from __future__ import annotations

import typer


def add_commands(app: typer.Typer) -> None:
    """Give an application the commands of this folder."""
    from llmemf.commands import data, features, models, recommend, train

    app.add_typer(data.app, name="data")
    app.add_typer(features.app, name="features")
    app.command("models")(models.models)
    app.command("train")(train.train)
    app.command("evaluate")(train.evaluate)
    app.command("recommend")(recommend.recommend)
