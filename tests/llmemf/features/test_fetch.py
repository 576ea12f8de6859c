"""Images from a real HTTP server with every failure that a shop's image server has."""

import asyncio
import dataclasses
import datetime
import json
import re
import signal
import ssl
import subprocess
import sys
import time
import zlib
from collections import Counter

import command_calls
import httpcore2
import pandas as pd
import pytest
from image_server import FakeImages, after, bomb, drip, hang_up, logged, picture, redirect, send, slow

from llmemf.append_only_log import AppendOnlyLog
from llmemf.features.addresses import GuardedBackend
from llmemf.features.fetch import ImageFetch
from llmemf.features.image_content import NoImage
from llmemf.features.image_limits import FetchSettings

SETTINGS = FetchSettings(allow_private=True, timeout=20.0, tries=3, concurrency=8)


def fetch(scenario, settings=SETTINGS, **options):
    run = ImageFetch(scenario, settings, backoff=0.01, **options)
    return asyncio.run(run.run()), run


call, refuse = command_calls.below("features", "images")


ONE_PIXEL = picture("GIF", (1, 1))

ROUTES = {
    "ok": (send(picture()), "ok", 1),
    "png named jpg, wrong header": (send(picture("PNG"), kind="text/html"), "ok", 1),
    "webp": (send(picture("WEBP")), "ok", 1),
    "gif": (send(picture("GIF")), "ok", 1),
    "redirected": (redirect("/ok"), "ok", 1),
    "redirected late": (redirect("/redirected", 308), "ok", 1),
    "comes late": (after(2, send(b"", 503), send(picture())), "ok", 3),
    "limited": (after(2, send(b"", 429, Retry_After="0.05"), send(picture())), "ok", 3),
    "hangs up once": (after(1, hang_up, send(picture())), "ok", 2),
    "cut once": (after(1, send(picture()[:300], length=5000), send(picture())), "ok", 2),
    "cut": (send(picture()[:300], length=5000), "broken connection", 3),
    "hangs up": (hang_up, "broken connection", 3),
    "gone": (send(b"", 404), "HTTP 404", 1),
    "forbidden": (send(b"", 403), "HTTP 403", 1),
    "down": (send(b"", 500), "HTTP 500", 3),
    "page": (send(b"<!DOCTYPE html><p>Not found</p>"), "not an image (a web page)", 1),
    "svg": (send(b"<svg xmlns='http://www.w3.org/2000/svg'/>", kind="image/svg+xml"), "unsupported image format", 1),
    "text": (send(b"hello"), "not an image", 1),
    "nothing": (send(b""), "empty", 1),
    "half": (send(picture()[:500]), "broken image", 1),
    "one pixel": (send(ONE_PIXEL), "too small", 1),
    "bomb": (send(bomb(30_000)), "too many pixels", 1),
    "huge": (send(b"\xff\xd8\xff" + b"\0" * 300_000), "too large", 1),
    "endless": (drip, "too large", 1),
    "compressed": (send(zlib.compress(picture()), Content_Encoding="deflate"), "compressed transfer", 1),
    "in a circle": (redirect("/in%20a%20circle"), "too many redirects", 6),
    "to ftp": (redirect("ftp://127.0.0.1/x"), "bad address", 1),
    "to a file": (redirect("file:///etc/passwd"), "bad address", 1),
    "asks for patience": (send(b"", 429, Retry_After="9999"), "HTTP 429", 1),
}


def path_of(name):
    return "/" + name.replace(" ", "%20")


def test_every_kind_of_server(photo_shop):
    settings = dataclasses.replace(SETTINGS, timeout=20.0, max_megabytes=0.2, max_megapixels=1.0)
    with FakeImages({path_of(name): route for name, (route, _, _) in ROUTES.items()}) as server:
        scenario = photo_shop([server.url + path_of(name) for name in ROUTES])
        table, run = fetch(scenario, settings)
        expected = {name: status for name, (_, status, _) in ROUTES.items()}
        assert dict(zip(ROUTES, table.status)) == expected
        calls = {name: server.calls[path_of(name)] for name in ROUTES}
        times = {name: count for name, (_, _, count) in ROUTES.items()}
        times["redirected"] = 2  # its own and that of "redirected late"
        times["ok"] = 3
        assert calls == times
        assert server.most_at_once <= settings.concurrency
        written = pd.read_parquet(scenario.folder / "images.parquet")
        pd.testing.assert_frame_equal(written, table)
        assert written.columns.tolist() == ["item", "path", "status", "address"]
        assert written.path[0] == "images/000000.jpg" and written.path[1] == "images/000001.png"
        assert (scenario.folder / written.path[1]).read_bytes() == picture("PNG")
        assert ((written.path == "") == (written.status != "ok")).all()
        names = {path.name for path in (scenario.folder / "images").iterdir()}
        assert names == {path.split("/")[1] for path in written.path if path}, "nothing else is left there"

        server.calls.clear()
        settings = dataclasses.replace(settings, tries=1)
        fetch(scenario, settings)
        again = {name for name in ROUTES if server.calls[path_of(name)]}
        assert again == {"cut", "hangs up", "down", "asks for patience"}, "only what may pass is tried again"
        server.calls.clear()
        fetch(scenario, dataclasses.replace(settings, retry_failed=True))
        again = {name for name in ROUTES if server.calls[path_of(name)]}
        assert again - {"redirected", "ok"} == {name for name, (_, status, _) in ROUTES.items() if status != "ok"}
    assert run.stop.reason == ""


def test_a_server_that_takes_too_long(photo_shop):
    def trickle(handler, before):
        """Bytes keep coming, but too slowly: a limit between two reads alone would never end."""
        handler.send_response(200)
        handler.send_header("Content-Length", "100000")
        handler.end_headers()
        for _ in range(30):
            handler.wfile.write(b"\xff")
            time.sleep(0.05)

    with FakeImages({"/silent": slow(1.0, send(picture())), "/trickle": trickle}) as server:
        scenario = photo_shop([f"{server.url}/silent", f"{server.url}/trickle"])
        table, _ = fetch(scenario, dataclasses.replace(SETTINGS, timeout=0.3, tries=2))
    assert table.status[:2].tolist() == ["timeout", "timeout"]
    assert server.calls == {"/silent": 2, "/trickle": 2}


def test_cells_that_are_no_addresses(photo_shop):
    scenario = photo_shop(
        ["ftp://host/a.jpg", "http://", "images/mine.png", "../../x.jpg", "images/none.jpg", "data:image/png,x", ""]
    )
    (scenario.folder / "images").mkdir()
    (scenario.folder / "images" / "mine.png").write_bytes(picture("PNG"))
    (scenario.folder.parent.parent / "x.jpg").write_bytes(picture())
    table, _ = fetch(scenario)
    outside = "path outside the scenario's folder"
    assert table.status.tolist() == [
        "bad address",
        "bad address",
        "ok",
        outside,
        "no such file",
        "bad address",
        "no address",
    ]
    assert table.path[2] == "images/mine.png"


def test_one_address_is_fetched_once_for_all_its_items(photo_shop):
    with FakeImages({"/a": send(picture())}) as server:
        scenario = photo_shop([f"{server.url}/a"] * 5)
        table, _ = fetch(scenario)
        assert server.calls["/a"] == 1 and set(table.path[:5]) == {"images/000000.jpg"}
        (scenario.folder / "images/000000.jpg").write_bytes(b"cut")
        fetch(scenario)
        assert server.calls["/a"] == 2, "a file that is not as it was written is fetched again"
        assert (scenario.folder / "images/000000.jpg").read_bytes() == picture()


class Detour(httpcore2.AsyncNetworkBackend):
    """Leads the connection to a public address to the test's server, and notes which address was asked for."""

    def __init__(self, port):
        self.port = port
        self.asked = []

    async def connect_tcp(self, host, port, timeout=None, local_address=None, socket_options=None):
        self.asked.append(host)
        return await httpcore2.AnyIOBackend().connect_tcp("127.0.0.1", self.port, timeout)


def guarded(port, names):
    """A guarded backend whose resolver knows these names; each look-up takes the next of a name's answers."""
    looked = Counter()

    async def resolver(host, _):
        answers = names[host]
        looked[host] += 1
        return answers[min(looked[host], len(answers)) - 1]

    detour = Detour(port)
    return GuardedBackend(resolver=resolver, inner=detour), detour


def test_the_first_address_and_redirects_must_be_public(photo_shop):
    routes = {
        "/ok": send(picture()),
        "/inside": redirect("http://inside.test/ok"),
        "/meta": redirect("http://169.254.169.254/"),
    }
    with FakeImages(routes) as server:
        names = {
            "shop.test": [["93.184.216.34"]],
            "inside.test": [["10.0.0.7"]],
            "169.254.169.254": [["169.254.169.254"]],
        }
        names["rebound.test"] = [["8.8.8.8"], ["127.0.0.1"]]
        names["mixed.test"] = [["127.0.0.1", "8.8.4.4"]]
        backend, detour = guarded(server.port, names)
        hosts = [
            "shop.test/ok",
            "shop.test/inside",
            "shop.test/meta",
            "inside.test/ok",
            "rebound.test/ok",
            "mixed.test/ok",
        ]
        table, _ = fetch(
            photo_shop([f"http://{host}" for host in hosts]),
            dataclasses.replace(SETTINGS, allow_private=False),
            backend=backend,
        )
    assert table.status[:6].tolist() == ["ok", "private address", "private address", "private address", "ok", "ok"]
    assert set(detour.asked) == {"93.184.216.34", "8.8.8.8", "8.8.4.4"}, (
        "connected to what was checked, and nothing else"
    )
    assert set(server.hosts) == {"shop.test", "rebound.test", "mixed.test"}, "servers see the name that was asked for"


def test_private_addresses_are_refused_by_default(photo_shop):
    with FakeImages({"/ok": send(picture())}) as server:
        photo_shop([f"{server.url}/ok", f"http://localhost:{server.port}/ok", f"http://[::ffff:127.0.0.1]:{server.port}/ok", f"http://2130706433:{server.port}/ok", f"http://0x7f.1:{server.port}/ok"])  # fmt: skip
        printed = call("tiny")
        assert not server.calls
        assert "private address" in printed
        printed = call("tiny", "--allow-private", "--retry-failed")
        assert server.calls["/ok"] >= 2


def test_a_machine_that_is_offline_stops_early_and_tries_all_of_them_again(photo_shop):
    async def nobody(host, port):
        raise NoImage("unknown host", transient=True)

    backend = GuardedBackend(resolver=nobody)
    scenario = photo_shop([f"http://h{number}.test/a.jpg" for number in range(80)])
    table, run = fetch(scenario, dataclasses.replace(SETTINGS, tries=1), backend=backend)
    assert run.stop.reason == "endpoint" and "is this machine online?" in run.stop.message
    counts = table.status.value_counts()
    assert 50 <= counts["unknown host"] <= 58 and counts["not fetched"] == 80 - counts["unknown host"]
    with FakeImages({"/a.jpg": send(picture())}) as server:
        names = {f"h{number}.test": [["8.8.8.8"]] for number in range(80)}
        assert (fetch(scenario, backend=guarded(server.port, names)[0])[0].status == "ok").all()


def test_a_certificate_must_be_trusted_and_name_the_host(photo_shop, tmp_path, monkeypatch):
    """Though the connection goes to an IP address, the certificate is compared with the name in the address."""
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "shop.test")])
    start = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(start).not_valid_after(start + datetime.timedelta(days=9))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("shop.test")]), critical=False)
    pem = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    private = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (tmp_path / "c.pem").write_bytes(pem + key.private_bytes(*private))

    with FakeImages({"/ok": send(picture())}) as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tmp_path / "c.pem")
        server.server.socket = context.wrap_socket(server.server.socket, server_side=True)
        names = {"shop.test": [["8.8.8.8"]], "other.test": [["8.8.8.8"]]}
        scenario = photo_shop(["https://shop.test/ok", "https://other.test/ok"])
        table, _ = fetch(scenario, backend=guarded(server.port, names)[0])
        assert table.status[:2].tolist() == ["bad certificate"] * 2
        trusting = ssl.create_default_context(cadata=pem.decode())
        monkeypatch.setattr("llmemf.features.addresses.httpx2.create_ssl_context", lambda: trusting)
        settings = dataclasses.replace(SETTINGS, retry_failed=True)
        table, _ = fetch(scenario, settings, backend=guarded(server.port, names)[0])
        assert table.status[:2].tolist() == ["ok", "bad certificate"]


# Politeness.


def test_a_pause_that_a_server_asks_for_holds_all_its_requests(photo_shop):
    asked = {}

    def note(handler, before):
        asked.setdefault(handler.path, []).append(time.monotonic())
        refuse = handler.path == "/first" and before == 0
        (send(b"", 429, Retry_After="0.6") if refuse else send(picture()))(handler, before)

    with FakeImages(dict.fromkeys(("/first", "/second"), note)) as server:
        scenario = photo_shop([f"{server.url}/first", f"{server.url}/second"])
        table, _ = fetch(scenario, dataclasses.replace(SETTINGS, concurrency=1))
    assert (table.status[:2] == "ok").all()
    refused, again = asked["/first"]
    assert again - refused >= 0.6 and asked["/second"][0] - refused >= 0.6


# Kill, Ctrl-C, lock.


def child(*options):
    command = [sys.executable, "-m", "llmemf", "features", "images", "tiny", "--allow-private", "--concurrency", "4"]
    return subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.005)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_run_goes_on_where_it_was(photo_shop, number):
    paths = [f"/{index}" for index in range(24)]
    with FakeImages({path: slow(0.05, send(picture(seed=index))) for index, path in enumerate(paths)}) as server:
        scenario = photo_shop([server.url + path for path in paths])
        process = child()
        wait_for(lambda: logged(scenario) >= 6)
        process.send_signal(number)
        printed, errors = process.communicate(timeout=20)
        if number == signal.SIGINT:
            assert process.returncode == 130 and not errors and "continues from here" in printed
            assert (pd.read_parquet(scenario.folder / "images.parquet").status == "not fetched").any()
        kept = {path for path in paths if f"{server.url}{path}" in (scenario.folder / "images_log.jsonl").read_text()}
        if number == signal.SIGKILL:
            with (scenario.folder / "images_log.jsonl").open("a") as file:
                file.write('{"item": 3, "st')
        before = server.calls.copy()
        table, _ = fetch(scenario)
        assert (table.status == "ok").all() and len(kept) >= 6
        assert not [path for path in kept if server.calls[path] > before[path]], "what is there is not fetched again"
    for index, path in enumerate(table.path):
        assert (scenario.folder / path).read_bytes() == picture(seed=index)
    assert not [
        name
        for name in sorted(path.name for path in (scenario.folder / "images").iterdir())
        if not re.fullmatch(r"\d{6}\.jpg|\..*tmp", name)
    ]


def test_two_runs_on_one_scenario_are_refused(photo_shop, capsys):
    scenario = photo_shop(["http://127.0.0.1:9/x"])
    with AppendOnlyLog(scenario.folder / "images_log.jsonl", lock=True):
        assert "in use by another process" in refuse(capsys, "tiny")


def test_no_addresses_at_all(photo_shop, capsys):
    photo_shop([])
    assert "no item of scenario 'tiny' names an image" in refuse(capsys, "tiny")


def test_the_summary_counts_by_domain_and_reason(photo_shop):
    with FakeImages({"/ok": send(picture()), "/gone": send(b"", 404)}) as server:
        photo_shop([f"{server.url}/ok", f"{server.url}/gone", "", f"{server.url}/gone"])
        printed = call("tiny", "--allow-private")
    lines = [line.strip() for line in printed.splitlines() if re.search(r"\d+ +\d+ *$", line)]
    rows = {line.split("  ")[0]: line.split()[-2:] for line in lines}
    assert rows["ok"] == ["1", "0"] and rows["HTTP 404"] == ["1", "1"] and rows["no address"] == ["1", "3"]
    assert "2 of 2 images" in printed and "features encode tiny --kind image" in printed


def test_the_log_holds_one_line_per_outcome(photo_shop):
    with FakeImages({"/ok": send(picture())}) as server:
        scenario = photo_shop([f"{server.url}/ok"])
        fetch(scenario)
    record = json.loads((scenario.folder / "images_log.jsonl").read_text())
    assert (record["item"], record["status"], record["width"], record["height"]) == (0, "ok", 40, 30)
    assert record["bytes"] == len(picture()) and record["transient"] is False
