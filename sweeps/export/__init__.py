"""The best model in use: chosen from a sweep, written to a folder, registered in MLflow, served."""
