"""Rows of a study's table, worked by hand."""


def row(trial, latency, accuracy, heads=2, execution=0, status="completed", **others):
    return {
        "study": "tiny",
        "trial": trial,
        "execution": execution,
        "status": status,
        "latency_ms": latency,
        "val_accuracy": accuracy,
        "hp.num_heads": heads,
        **others,
    }


ROWS = [
    row("0", 2.0, 0.50),
    row("0", 2.0, 0.54, execution=1),
    row("1", 1.0, 0.40, heads=4),
    row("2", 3.0, 0.51, heads=4),  # slower and worse than trial 0
    row("3", 4.0, 0.60, heads=8),
    row("4", 9.0, None, heads=8, status="infeasible"),
    row("5", 1.0, float("nan"), heads=8),
]
