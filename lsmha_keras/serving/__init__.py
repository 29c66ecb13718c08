"""A classifier as an HTTP service. It needs `pip install "lsmha-keras[serve]"`."""
