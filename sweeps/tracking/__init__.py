"""MLflow: runs, the queue of operations that writes them, and its pages."""
