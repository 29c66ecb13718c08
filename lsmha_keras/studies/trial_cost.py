"""What a trial's model costs on this machine, and whether a study can afford it."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class TrialCost:
    """What a model costs on this machine.

    Attributes:
        parameters: int.
        multiply_adds: int, of one image.
        latency_ms: float, median time of one image, in milliseconds.
        memory_mib: float or None, peak memory that one image adds, in MiB; `None` where it was not
            measured.
    """

    parameters: int
    multiply_adds: int
    latency_ms: float
    memory_mib: float | None = None

    def excess(self, limits):
        """Compares with the limits of a budget.

        Args:
            limits: dict from the name of an attribute to its highest value.

        Returns:
            float, by what factor the model is above the limit it misses most; at most 1 if it meets
            all.

        Raises:
            ValueError: if what is limited could not be measured.

        Example:
            >>> TrialCost(2000, 10, 3.0).excess({"parameters": 1000, "latency_ms": 6.0})
            2.0
        """
        for name in limits:
            if getattr(self, name) is None:
                raise ValueError(
                    f"`{name}` cannot be measured here (memory: on Linux and CPUs only). "
                    f"Received: budget.{name}={limits[name]}"
                )
        return max((getattr(self, name) / limit for name, limit in limits.items()), default=0.0)


def measure_cost(model, memory=False, runs=50):
    """Measures what a model costs on the current backend and device.

    Args:
        model: `CCTImageClassifier`.
        memory: bool, whether memory is measured too, in a process of its own: seconds more.
        runs: int, timed calls.

    Returns:
        A `TrialCost`.

    Example:

    ```python
    measure_cost(model).latency_ms
    ```
    """
    from lsmha_keras.benchmark.benchmark_model import benchmark_model

    (speed,) = benchmark_model(model, batch_sizes=[1], runs=runs, memory=memory)
    return TrialCost(speed.parameters, speed.multiply_adds, speed.p50_ms, speed.peak_mib)
