"""The report on an analysis: tables, figures and an interactive page."""
