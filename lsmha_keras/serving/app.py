"""The HTTP service: its endpoints and their responses."""

import asyncio
import concurrent.futures
import contextlib
import pathlib
import time
from typing import Annotated

import numpy as np
from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from PIL import Image
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

import lsmha_keras
from lsmha_keras.errors import InputError
from lsmha_keras.predictor import processors
from lsmha_keras.serving.batcher import Batcher
from lsmha_keras.serving.metrics import Metrics
from lsmha_keras.serving.uploads import Limits, Refusal, decode_upload, receive_upload

_WEB = pathlib.Path(__file__).parent / "web"
_FILE = {"type": "string", "format": "binary"}
_FORM = {"type": "object", "properties": {"file": {"type": "array", "items": _FILE}}}
_BODY = {
    "required": True,
    "content": {
        "image/*": {"schema": _FILE},
        "multipart/form-data": {"schema": _FORM},
        "application/x-npy": {"schema": _FILE},
    },
}


def create_app(predictor, limits=None):
    """Makes an ASGI application that serves a classifier.

    `POST /classify` classifies an image file, the files of a form, or an array in the format of
    `np.save`. `GET /` is a page for people; `/health`, `/metrics` and `/model` are for programs,
    and `/openapi.json` describes them all. An error response is a JSON object with `error`, a word,
    and `message`, a sentence.

    Args:
        predictor: `lsmha_keras.Predictor`.
        limits: `Limits`, or `None` for the defaults.

    Raises:
        ValueError: if it is a model of texts or series.

    Returns:
        A `fastapi.FastAPI`, warmed up: the model has run with every batch size that is compiled.

    Example:

    ```python
    app = create_app(lsmha_keras.Predictor("lsmha-small"))
    uvicorn.run(app)
    ```
    """
    if predictor.kind != "images":
        raise InputError(
            "The service is for models of images; `lsmha predict` and `Predictor` take texts and "
            f"series. Received: {predictor.name}, a model of {predictor.kind}"
        )
    service = _Service(predictor, limits or Limits())

    @contextlib.asynccontextmanager
    async def lifespan(app):
        yield
        service.close()

    app = FastAPI(
        title=f"lsmha-keras: {predictor.name}",
        version=lsmha_keras.__version__,
        lifespan=lifespan,
        # FastAPI's documentation pages load scripts from another server.
        docs_url=None,
        redoc_url=None,
    )
    app.post("/classify", openapi_extra={"requestBody": _BODY})(service.classify)
    app.get("/model")(service.describe)
    app.get("/health")(service.health)
    app.get("/metrics")(service.report)
    app.exception_handler(Refusal)(service.refuse)
    app.exception_handler(RequestValidationError)(service.refuse_query)
    app.exception_handler(HTTPException)(service.refuse_http)
    app.exception_handler(ClientDisconnect)(service.forget)
    app.exception_handler(Exception)(service.fail)
    app.get("/", include_in_schema=False)(service.page)
    app.mount("/web", StaticFiles(directory=_WEB))
    return app


class _Service:
    """Answers requests. Only decoding and the model run outside the event loop's thread."""

    def __init__(self, predictor, limits):
        self.predictor, self.limits = predictor, limits
        self.metrics = Metrics(predictor)
        self.batcher = Batcher(
            predictor.probabilities, limits.batch, on_batch=self.metrics.observe_batch
        )
        # Bounded, as every photo that is being decoded holds all its pixels in memory.
        self.decoders = concurrent.futures.ThreadPoolExecutor(processors(), "lsmha-decoder")
        self.in_progress = 0
        Image.init()  # otherwise the first request waits while Pillow loads its formats
        self.batcher.warm_up(np.full(predictor.image_shape, 128, "uint8"))

    def close(self):
        self.batcher.close()
        self.decoders.shutdown(wait=True)

    async def classify(self, request: Request, top: Annotated[int, Query(ge=1, le=1000)] = 5):
        """Returns the most likely classes of each image, as `lsmha predict --json` does."""
        if self.in_progress >= self.limits.requests:
            raise Refusal(
                503,
                "busy",
                f"{self.in_progress} requests are being answered, the most allowed at a time. "
                "Try again in a second.",
            )
        start = time.perf_counter()
        self._count(+1)
        try:
            names, rows = await self._classify(request)
        finally:
            self._count(-1)
        self.metrics.request_seconds.observe(time.perf_counter() - start)
        self.metrics.requests.labels("200").inc()
        images = [
            {"image": name, "classes": self.predictor.best(row, top)}
            for name, row in zip(names, rows, strict=True)
        ]
        return JSONResponse({"model": self.predictor.name, "images": images})

    async def _classify(self, request):
        upload = None
        try:
            async with asyncio.timeout(self.limits.seconds):
                upload = await receive_upload(request, self.limits)
                images = await self._decode(upload)
                return upload.names, await self.batcher(images)
        except TimeoutError as error:
            seconds = f"{self.limits.seconds:g} seconds"
            if upload is None:
                message = f"The request did not arrive within {seconds}."
                raise Refusal(408, "slow_request", message) from error
            message = (
                f"There was no answer within {seconds}. Try again later, or send fewer images."
            )
            raise Refusal(504, "timeout", message) from error

    async def _decode(self, upload):
        if upload.array is not None and upload.array.shape[1:] == self.predictor.image_shape:
            return upload.array  # a switch of threads would take longer
        return await asyncio.get_running_loop().run_in_executor(
            self.decoders, decode_upload, upload, self.predictor, self.limits
        )

    def _count(self, change):
        self.in_progress += change
        self.metrics.in_progress.set(self.in_progress)

    async def page(self):
        return FileResponse(_WEB / "page.html")

    async def describe(self):
        """Describes the model and the limits of a request."""
        limits = self.limits
        return {
            "name": self.predictor.name,
            "runtime": self.predictor.runtime,
            "image_shape": self.predictor.image_shape,
            "num_classes": self.predictor.num_classes,
            "class_names": self.predictor.class_names,
            "max_bytes": limits.request_mib * 2**20,
            "max_images": limits.images,
            "max_megapixels": limits.megapixels,
        }

    async def health(self):
        """Reports that the service is up."""
        return {"status": "ok", "model": self.predictor.name}

    async def report(self):
        """Returns all metrics in Prometheus's text format."""
        return Response(self.metrics.text(), media_type=self.metrics.content_type)

    async def refuse(self, request, refusal):
        return self._refusal(refusal.status, refusal.error, refusal.message)

    async def refuse_query(self, request, error):
        problems = [f"{problem['loc'][-1]}: {problem['msg']}" for problem in error.errors()]
        return self._refusal(400, "bad_query", "; ".join(problems))

    async def refuse_http(self, request, error):
        messages = {
            404: f"There is nothing at {request.url.path}. Images go to /classify.",
            405: f"{request.url.path} does not take {request.method}.",
        }
        message = messages.get(error.status_code, str(error.detail))
        return self._refusal(error.status_code, "bad_request", message, error.headers)

    async def forget(self, request, error):
        # Nobody reads the response; 499 is what nginx logs for a client that went away.
        return self._refusal(499, "disconnected", "The client went away.")

    async def fail(self, request, error):
        # The server logs the traceback.
        return self._refusal(500, "internal", "The service failed; its log says why.")

    def _refusal(self, status, error, message, headers=None):
        self.metrics.requests.labels(str(status)).inc()
        headers = {**(headers or {}), **({"Retry-After": "1"} if status == 503 else {})}
        return JSONResponse({"error": error, "message": message}, status, headers)
