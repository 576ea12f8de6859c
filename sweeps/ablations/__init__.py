"""Which part of the model brings what."""
