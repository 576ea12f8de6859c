"""Pictures, and an image server with every failure that a shop's has."""

import io
import struct
import threading
import time
import zlib
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
from PIL import Image


def picture(kind="JPEG", size=(40, 30), seed=0):
    """Bytes of a noisy image."""
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def bomb(side):
    """A small PNG file that announces side x side pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 999)) + chunk(b"IEND", b"")
    )


class FakeImages:
    """An image server; `routes` maps a path to a function from (handler, how often it was asked) to nothing."""

    def __init__(self, routes):
        self.routes = routes
        self.calls = Counter()
        self.at_once = self.most_at_once = 0
        self.hosts = []

    def __enter__(self):
        fake, lock = self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_GET(self):
                with lock:
                    before = fake.calls[self.path]
                    fake.calls[self.path] += 1
                    fake.hosts.append(self.headers["Host"])
                    fake.at_once += 1
                    fake.most_at_once = max(fake.most_at_once, fake.at_once)
                try:
                    fake.routes[self.path](self, before)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True
                finally:
                    with lock:
                        fake.at_once -= 1

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


def send(data, status=200, kind="image/jpeg", length=None, **headers):
    """A route that answers with these bytes; `length` announces another length."""

    def answer(handler, before):
        handler.send_response(status)
        handler.send_header("Content-Type", kind)
        handler.send_header("Content-Length", str(len(data) if length is None else length))
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(data)
        handler.close_connection = length is not None

    return answer


def after(times, failing, then):
    """Fail so many times, then answer."""
    return lambda handler, before: (failing if before < times else then)(handler, before)


def hang_up(handler, before):
    handler.close_connection = True


def slow(seconds, then):
    def answer(handler, before):
        time.sleep(seconds)
        then(handler, before)

    return answer


def drip(handler, before):
    """A body that never ends: chunk by chunk without a length."""
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    for _ in range(10_000):
        handler.wfile.write(b"2000\r\n" + b"\xff" * 0x2000 + b"\r\n")


def redirect(location, status=302):
    return send(b"", status=status, Location=location)


def logged(scenario):
    path = scenario.folder / "images_log.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0
