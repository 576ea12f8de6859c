"""Item text and images as frozen feature matrices: offline encoders, import of ready matrices, the form on disk."""
