"""Metrics of a service, for Prometheus."""

import prometheus_client as prometheus

import lsmha_keras

# In seconds: from one image on a small model to a stalled queue.
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_IMAGES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """The metrics of one service, in their own registry.

    Args:
        predictor: `lsmha_keras.Predictor`, described by the metric `lsmha_model_info`.

    Example:

    ```python
    metrics = Metrics(predictor)
    metrics.requests.labels("200").inc()
    print(metrics.text().decode())
    ```
    """

    content_type = prometheus.CONTENT_TYPE_LATEST

    def __init__(self, predictor):
        self.registry = registry = prometheus.CollectorRegistry()
        prometheus.ProcessCollector(registry=registry)
        self.requests = prometheus.Counter(
            "lsmha_requests", "Requests answered, by HTTP status.", ["status"], registry=registry
        )
        self.in_progress = prometheus.Gauge(
            "lsmha_requests_in_progress", "Requests read, waiting or running.", registry=registry
        )
        self.request_seconds = prometheus.Histogram(
            "lsmha_request_seconds",
            "From the arrival of a request to its answer, of those answered with classes.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.batch_images = prometheus.Histogram(
            "lsmha_batch_images", "Images of a batch.", buckets=_IMAGES, registry=registry
        )
        self.batch_seconds = prometheus.Histogram(
            "lsmha_batch_seconds", "Time of a batch.", buckets=_SECONDS, registry=registry
        )
        info = prometheus.Info("lsmha_model", "What is served.", registry=registry)
        version = lsmha_keras.__version__
        info.info({"name": predictor.name, "runtime": predictor.runtime, "version": version})

    def observe_batch(self, images, seconds):
        """Records the number of images (int) and the seconds (float) of a batch."""
        self.batch_images.observe(images)
        self.batch_seconds.observe(seconds)

    def text(self):
        """Returns all metrics in Prometheus's text format, as bytes."""
        return prometheus.generate_latest(self.registry)
