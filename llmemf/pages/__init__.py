"""The frame of all HTML pages: one template with its style, one module of charts."""
