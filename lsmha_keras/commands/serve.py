"""Serve a preset over HTTP, with a page for photos.

Programs send images to /classify, people open the address in a browser. Images that arrive while
the model runs form the next batch. Presets with a model.onnx, such as the shipped ones, run in
onnxruntime, without Keras and its backend, unless --backend, KERAS_BACKEND or --runtime says
otherwise. SIGTERM and Ctrl-C stop the service after it has answered the requests in progress. Only
this machine can reach it, unless --host names another address; there is no password.
"""

import argparse
import warnings

from lsmha_keras._imports import needed_package
from lsmha_keras.commands._common import (
    RUNTIMES,
    add_command,
    choose_backend,
    open_predictor,
    positive,
)

_EPILOG = """\
examples:
  lsmha serve lsmha-small
  curl --data-binary @photo.jpg http://127.0.0.1:8000/classify
  lsmha serve runs/mine/preset --port 0 --runtime openvino --threads 4

It needs: pip install "lsmha-keras[serve]"
"""
_PACKAGES = ("fastapi", "uvicorn", "python_multipart", "prometheus_client")


def add_parser(commands, parents):
    """Adds `lsmha serve`."""
    # The preset decides whether a backend is needed at all.
    parser = add_command(commands, "serve", globals(), _EPILOG, parents, needs_backend=False)
    parser.add_argument("name", metavar="NAME", help="preset name or directory, or an exported one")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen at (default: 127.0.0.1)"
    )
    parser.add_argument(
        "--port", type=_port, default=8000, metavar="N", help="0: any (default: 8000)"
    )
    parser.add_argument(
        "--runtime",
        choices=RUNTIMES,
        help="runtime of the model (default: onnxruntime if possible, else keras)",
    )
    parser.add_argument(
        "--threads", type=positive, metavar="N", help="of the model (default: all cores)"
    )
    limits = parser.add_argument_group("limits")
    for option, default, meaning in (
        ("--max-mib", 16, "size of a request in MiB"),
        ("--max-images", 256, "images per request"),
        ("--max-megapixels", 64, "size of a photo in millions of pixels"),
        ("--max-requests", 64, "requests at a time; others get status 503"),
        ("--seconds", 30, "time from a request to its answer"),
        ("--max-batch", 32, "images that the model runs at a time"),
    ):
        limits.add_argument(
            option,
            type=positive,
            default=default,
            metavar="N",
            help=f"{meaning} (default: {default})",
        )
    parser.add_argument("--verbose", action="store_true", help="log each request")


def run(args):
    """Serves until a signal stops it."""
    asked = getattr(args, "backend", None)
    if asked:
        choose_backend(asked)
    for package in _PACKAGES:
        needed_package(package, extra="serve")
    from lsmha_keras.predictor import find_onnx

    find_onnx(args.name)  # raises for an unknown name before Keras is imported
    from lsmha_keras.serving.server import address, open_socket, run_server

    # Before the model is loaded, so that a port in use is reported at once.
    with open_socket(args.host, args.port) as opened:
        predictor = open_predictor(args.name, args.runtime, asked, args.threads)
        from lsmha_keras.serving.app import create_app
        from lsmha_keras.serving.uploads import Limits

        limits = Limits(
            request_mib=args.max_mib,
            images=args.max_images,
            megapixels=args.max_megapixels,
            requests=args.max_requests,
            seconds=args.seconds,
            batch=args.max_batch,
        )
        # Pillow's warnings about odd files would fill the log; clients get an answer that tells.
        warnings.filterwarnings("ignore", module="PIL")
        app = create_app(predictor, limits)
        print(f"{predictor.name} in {predictor.runtime}: {address(opened)}", flush=True)
        run_server(app, opened, limits.seconds, args.verbose)
    print("stopped", flush=True)
    return 0


def _port(text):
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"expected a port from 0 to 65535. Received: {text}")
    return int(text)
