"""Studies: searching head counts, widths and blocks with KerasTuner."""
