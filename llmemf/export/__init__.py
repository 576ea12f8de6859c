"""A trained model as a folder that answers histories, on machines that have never seen its scenario."""
