"""What MLflow runs to serve an exported model; a copy of this file travels with every registered version.

The folder lies beside it as the artifact `model`. A request is one object of {"inputs": [...]}, see
`llmemf.export.recommendation`; each gets one answer, or a sentence on why it has none.
"""

from __future__ import annotations

from typing import Any

import mlflow
from mlflow.pyfunc import PythonModel

LARGEST_CALL = 10_000
"""Requests of one call; MLflow's server gives a call 60 seconds."""


class ServedModel(PythonModel):
    """Answers lists of requests."""

    def load_context(self, context: Any) -> None:
        """Load the folder, on a GPU where there is one."""
        from llmemf.export.recommendation import Recommendations

        self.recommendations = Recommendations.load(context.artifacts["model"])

    def predict(self, context: Any, model_input: list[Any], params: Any = None) -> list[dict[str, Any]]:
        """One answer per request. Nothing is raised: MLflow's server repeats the whole call in its message of an error."""
        if len(model_input) > LARGEST_CALL:
            problem = f"{len(model_input):,} requests in one call: send at most {LARGEST_CALL:,} at once"
            return [{"error": problem}] * len(model_input)
        return self.recommendations.answers(model_input)


mlflow.models.set_model(ServedModel())
