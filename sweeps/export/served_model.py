"""What MLflow runs to serve an exported model; a copy of this file travels with every registered version.

The folder lies beside it as the artifact `model`. A request is one object of {"inputs": [...]}, see
`llmemf.export.recommendation`; each gets one answer.
"""

from __future__ import annotations

from typing import Any

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PythonModel


class ServedModel(PythonModel):
    """Answers lists of requests."""

    def load_context(self, context: Any) -> None:
        """Load the folder, on a GPU where there is one."""
        from llmemf.export.recommendation import Recommendations

        self.recommendations = Recommendations.load(context.artifacts["model"])

    def predict(self, context: Any, model_input: list[dict[str, Any]], params: Any = None) -> list[dict[str, Any]]:
        """One answer per request; a request that cannot be answered makes the whole call a bad one (HTTP 400).

        Raises:
            MlflowException: a request is not understood; it says which and why.
        """
        from llmemf.errors import InputError

        answers = []
        for number, request in enumerate(model_input, start=1):
            try:
                answers.append(self.recommendations.answer(request))
            except InputError as error:
                where = f"request {number} of {len(model_input)}: " if len(model_input) > 1 else ""
                raise MlflowException.invalid_parameter_value(f"{where}{error}") from None
        return answers


mlflow.models.set_model(ServedModel())
