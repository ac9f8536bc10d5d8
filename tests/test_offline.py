"""The air gap holds. Every test runs in a process of its own, since an audit hook cannot be taken out again."""

from __future__ import annotations

import hashlib
import ipaddress
import json
import os
import subprocess
import sys
import textwrap
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from goalcover_local import ledger, offline

ALIEN = "192.0.2.1"
"""An address that belongs to nobody (RFC 5737)."""

BEGINNING = """
import contextlib, json, os, socket, subprocess, sys
from goalcover_local import offline
from goalcover_local.errors import NetworkRefused

ALIEN = "192.0.2.1"

def refuses(what, *arguments, **named):
    try:
        what(*arguments, **named)
    except NetworkRefused as error:
        assert error.problem and error.mend
        return True
    except OSError:
        return False
    return False

def udp(family=socket.AF_INET):
    return socket.socket(family, socket.SOCK_DGRAM)

def tcp(family=socket.AF_INET):
    return socket.socket(family, socket.SOCK_STREAM)
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of the test's own, whose ledger is told what is refused."""
    monkeypatch.setenv("GOALCOVER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("GOALCOVER_STATE", str(tmp_path / "home"))
    monkeypatch.delenv(offline.SHUT_IN_WORKERS, raising=False)
    return tmp_path / "home"


def said(code: str, *arguments: str, flags: tuple[str, ...] = (), beginning: str = BEGINNING) -> str:
    """What a fresh process prints that runs this code."""
    program = beginning + textwrap.dedent(code)
    command = [sys.executable, *flags, "-c", program, *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


def noted() -> list[tuple[str, str]]:
    """The event and host of each refused attempt in the ledger."""
    return [(e.told["event"], e.told["host"]) for e in ledger.read().events if e.kind == "network refused"]


# What is refused, and what is not

ATTEMPTS = [
    "udp().connect, (ALIEN, 9)",
    "udp().connect_ex, (ALIEN, 9)",
    "socket.create_connection, (ALIEN, 9), 0.1",
    "udp().sendto, b'x', (ALIEN, 9)",
    "udp().sendto, b'x', 0, (ALIEN, 9)",
    "udp().sendto, b'x', 0, ('<broadcast>', 9)",
    "udp().sendmsg, [b'x'], [], 0, (ALIEN, 9)",
    "tcp().sendto, b'x', socket.MSG_FASTOPEN, (ALIEN, 9)",
    "udp().connect, ('10.0.0.1', 53)",
    "udp().connect, ('0.0.0.1', 9)",
    "udp().connect, ('0.0.0.0', 9)",
    "udp().connect, ('', 9)",
    "udp().connect, (b'192.0.2.1', 9)",
    "udp().connect, (bytearray(b'192.0.2.1'), 9)",
    "udp().connect, (2130706433, 9)",
    "udp(socket.AF_INET6).connect, ('2001:db8::1', 9)",
    "udp(socket.AF_INET6).connect, ('2001:db8::1', 9, 0, 0)",
    "udp(socket.AF_INET6).connect, ('::', 9)",
    "udp(socket.AF_INET6).connect, ('fe80::1%lo', 9)",
    "udp(socket.AF_INET6).connect, ('::ffff:192.0.2.1', 9)",
    "tcp().bind, ('0.0.0.0', 8099)",
    "tcp().bind, ('', 8099)",
    "tcp().bind, (ALIEN, 0)",
    "tcp(socket.AF_INET6).bind, ('::', 8099)",
    "udp().bind, ('', 0)",
    "tcp().listen,",
    "tcp(socket.AF_INET6).listen, 5",
    "socket.create_server, ('', 0)",
    "socket.getaddrinfo, 'example.invalid', 443",
    "socket.getaddrinfo, b'example.invalid', 443",
    "socket.getaddrinfo, 'bücher.invalid', 443",
    "socket.getaddrinfo, ALIEN, 443",
    "socket.getaddrinfo, '', 443",
    "socket.getaddrinfo, 'localhost.', 443",
    "socket.getaddrinfo, '127.0.0.1.', 443",
    "socket.getaddrinfo, '127.0.0.1%x.example.invalid', 443",
    "socket.getaddrinfo, '::1%x.example.invalid', 443",
    "socket.getaddrinfo, 'localhost.example.invalid', 443",
    "socket.gethostbyname, 'example.invalid'",
    "socket.gethostbyname_ex, 'example.invalid'",
    "socket.gethostbyaddr, ALIEN",
    "socket.gethostbyaddr, '127.77.1.2'",
    "socket.getnameinfo, (ALIEN, 9), 0",
    "socket.getnameinfo, ('127.77.1.2', 9), 0",
    "socket.getfqdn, 'example.invalid'",
    "socket.socket, socket.AF_PACKET, socket.SOCK_RAW",
    "socket.socket, socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP",
    "socket.socket, socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP",
    "socket.socket, socket.AF_INET6, socket.SOCK_SEQPACKET",
    "socket.socket, socket.AF_INET, socket.SOCK_STREAM, 132",
    "socket.socket, 40, socket.SOCK_STREAM",
    "socket.socket, 31, socket.SOCK_STREAM, 3",
    "socket.socket, socket.AF_CAN, socket.SOCK_RAW, 1",
    "socket.socket, socket.AF_NETLINK, socket.SOCK_RAW",
    "__import__('_socket').socket, 2, 2",
    "socket.SocketType, socket.AF_INET6, socket.SOCK_STREAM",
    "socket.SocketType,",
    "type('Own', (socket.SocketType,), {}), socket.AF_INET",
    "lambda: socket.SocketType(fileno=tcp().detach()),",
    "udp().connect, ('127.0.0.53', 53)",
    "udp().connect, (b'localhost', True + 52)",
    "udp().sendto, b'x', ('127.0.0.1', 53)",
    "udp(socket.AF_INET6).sendmsg, [b'x'], [], 0, ('::1', 53)",
    "tcp().connect_ex, ('localhost', 53)",
    "socket.create_connection, ('127.0.0.1', 53), 0.1",
    "socket.SocketType.connect, udp(), ('127.0.0.1', 53)",
]


def test_whatever_leaves_the_machine_is_refused_and_remembered_once() -> None:
    code = f"""
    offline.shut()
    for attempt in {ATTEMPTS!r}:
        before = len(offline.refused)
        if not refuses(*eval(attempt)) or len(offline.refused) != before + 1:
            print(attempt)
    """
    assert said(code) == ""


def test_before_it_is_shut_nothing_is_refused() -> None:
    code = """
    print(offline.is_shut(), refuses(udp().connect, (ALIEN, 9)), offline.SHUT_IN_WORKERS in os.environ)
    tcp().listen()
    """
    assert said(code) == "False False False"


def test_a_name_is_refused_before_it_is_looked_up() -> None:
    """CPython looks a name up before it audits a connect to it: without the guard's own look this were a gaierror."""
    code = """
    offline.shut()
    ways = [(udp().connect,), (tcp().connect_ex,), (udp().sendto, b"x"), (udp().sendmsg, [b"x"], [], 0), (tcp().bind,)]
    print([refuses(*way, ("goalcover.invalid", 0)) for way in ways], *(told.split()[0] for told in offline.refused))
    """
    events = "socket.connect socket.connect_ex socket.sendto socket.sendmsg socket.bind"
    assert said(code) == f"[True, True, True, True, True] {events}"


def test_loopback_is_let_be() -> None:
    code = """
    offline.shut()
    server = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(server.getsockname(), 5)
    there, _ = server.accept()
    client.sendall(b"well")
    receiver, sender = udp(), udp()
    receiver.bind(("127.0.0.1", 0))
    sender.sendto(b"met", receiver.getsockname())
    sender.connect(receiver.getsockname())
    sender.sendmsg([b"again"])
    one, other = socket.socketpair()
    one.sendall(b"too")
    hidden, seeker = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
    hidden.bind("\\0goalcover-test-%d" % os.getpid()); hidden.listen()
    seeker.connect(hidden.getsockname())
    socket.create_server(("localhost", 0)).close()
    socket.getaddrinfo("localhost", 80)
    socket.getaddrinfo("LocalHost", 80)
    socket.getaddrinfo("::1", 80)
    socket.getaddrinfo(None, 0)
    socket.gethostbyname("127.0.0.1")
    socket.getaddrinfo("localhost", 53)
    socket.gethostname()
    socket.SocketType(socket.AF_UNIX).close()
    adopted = socket.socket(fileno=tcp().detach())
    print(there.recv(9), receiver.recv(9), receiver.recv(9), other.recv(9), offline.refused)
    """
    assert said(code) == "b'well' b'met' b'again' b'too' []"


def test_what_works_on_loopback_goes_on_working() -> None:
    code = """
    import asyncio, http.client, http.server, multiprocessing.connection, socketserver, ssl, threading
    offline.shut()

    async def echo():
        async def answer(reader, writer):
            writer.write(await reader.read(4)); await writer.drain(); writer.close()
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"well")
        return await reader.read()
    print(asyncio.run(echo()), end=" ")

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self): self.send_response(204); self.end_headers()
        def log_message(self, *_): pass
    server = socketserver.TCPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.handle_request, daemon=True).start()
    client = http.client.HTTPConnection(*server.server_address)
    client.request("GET", "/"); print(client.getresponse().status, end=" ")

    with multiprocessing.connection.Listener(("127.0.0.1", 0), authkey=b"k") as listener:
        def send(): multiprocessing.connection.Client(listener.address, authkey=b"k").send("met")
        threading.Thread(target=send, daemon=True).start()
        print(listener.accept().recv(), end=" ")

    listening = socket.create_server(("127.0.0.1", 0))
    plain = socket.create_connection(listening.getsockname())
    wrapped = ssl.create_default_context().wrap_socket(plain, server_hostname="x", do_handshake_on_connect=False)
    print(isinstance(wrapped, ssl.SSLSocket), socket.fromfd(listening.fileno(), 2, 1).family == 2, offline.refused)
    """
    assert said(code) == "b'well' 204 met True True []"


def test_a_free_port_may_be_looked_for_but_not_listened_at() -> None:
    """vLLM, TRL and accelerate bind to every address to find one."""
    code = """
    offline.shut()
    found = []
    for family, host in ((socket.AF_INET, ""), (socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        with tcp(family) as looking:
            looking.bind((host, 0))
            found.append((looking.getsockname()[1] > 0, refuses(looking.listen)))
    print(found)
    """
    assert said(code) == "[(True, True), (True, True), (True, True)]"


def test_what_is_no_address_is_left_to_the_socket_and_never_told() -> None:
    code = """
    offline.shut()
    for attempt in ((udp().sendto, b"a patient's words"), (udp().connect,), (udp().connect, "text")):
        try:
            attempt[0](*attempt[1:])
        except TypeError as error:
            print("patient" in str(error), end=" ")
    print(offline.refused)
    """
    assert said(code) == "False False False []"


@pytest.mark.parametrize(
    ("host", "is_loopback"),
    [
        ("127.3.2.1", True),
        ("::1", True),
        ("::1%lo", True),
        ("0:0:0:0:0:0:0:1", True),
        ("::ffff:127.0.0.1", True),
        ("localhost", True),
        ("LOCALHOST", True),
        (b"127.0.0.1", True),
        (bytearray(b"localhost"), True),
        ("", False),
        (None, False),
        (2130706433, False),
        ("localhost.", False),
        ("foo.localhost", False),
        ("ｌｏｃａｌｈｏｓｔ", False),
        ("１２７.0.0.1", False),
        ("127.1", False),
        ("0177.0.0.1", False),
        ("127.0.0.1 ", False),
        ("127.0.0.1%x.example.invalid", False),
        ("::1%x.example.invalid", False),
        ("::127.0.0.1", False),
        ("64:ff9b::7f00:1", False),
        ("::ffff:192.0.2.1", False),
        ("0.0.0.0", False),
        ("::", False),
        ("127.0.0.1.example.invalid", False),
        (b"\xff", False),
    ],
)
def test_loopback_is_told_from_what_looks_like_it(host: object, is_loopback: bool) -> None:
    assert offline._loopback(host) == is_loopback


class Disguised(str):
    """A text that says it is another."""

    def __str__(self) -> str:
        return "127.0.0.1"

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = str.__hash__

    def lower(self) -> str:
        return "localhost"


def test_a_host_in_disguise_is_seen_through() -> None:
    assert not offline._loopback(Disguised(ALIEN))
    assert offline._named(Disguised(ALIEN)) == ALIEN


@given(st.ip_addresses())
def test_of_all_addresses_only_those_of_loopback_are_loopback(address: ipaddress.IPv4Address) -> None:
    four = getattr(address, "ipv4_mapped", None) or address
    inside = int(four) >> 24 == 127 if four.version == 4 else int(four) == 1
    assert offline._loopback(str(address)) == offline._loopback(str(address).encode()) == inside
    assert offline._loopback(address.exploded) == inside


@given(st.text())
def test_a_text_is_loopback_only_if_it_is_localhost_or_an_address(text: str) -> None:
    if offline._loopback(text):
        assert text.lower() == "localhost" or ipaddress.ip_address(text)


def hidden(text: str) -> str:
    """What is told of a name that is none."""
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return f"a name of {len(text)} characters (SHA-256 {digest[:12]})"


@pytest.mark.parametrize(
    ("host", "told"),
    [
        (ALIEN, ALIEN),
        ("2001:db8::1", "2001:db8::1"),
        ("fe80::1%Erika Mustermann", "fe80::1"),
        ("huggingface.co", "huggingface.co"),
        ("a-host.of.example.invalid", "example.invalid"),
        ("Erika-Mustermann.is-ill.example.invalid", "example.invalid"),
        (b"x.example.invalid", "example.invalid"),
        ("", ""),
        ("<broadcast>", "<broadcast>"),
        (2130706433, "<int>"),
        ("Erika", hidden("Erika")),
        ("Erika Mustermann is ill", hidden("Erika Mustermann is ill")),
        ("Erika Mustermann.example.invalid", hidden("Erika Mustermann.example.invalid")),
        ("example.invalid\n", hidden("example.invalid\n")),
        ("bücher.invalid", hidden("bücher.invalid")),
        ("a..invalid", hidden("a..invalid")),
        ("a" * 64 + ".invalid", hidden("a" * 64 + ".invalid")),
        ("a." * 124 + "invalid", hidden("a." * 124 + "invalid")),
        ("\x1b]0;x\x07", hidden("\x1b]0;x\x07")),
        ("\ud800", hidden("\ud800")),
    ],
)
def test_of_a_host_is_told_what_can_be_no_samples_words(host: object, told: str) -> None:
    assert offline._named(host) == told


@given(st.text(min_size=1) | st.binary(min_size=1))
def test_of_a_host_a_short_line_of_ascii_is_told(host: str | bytes) -> None:
    named = offline._named(host)
    assert 0 < len(named) <= 127 and named.isascii() and named.isprintable()


# Libraries

LIBRARIES = {
    "asyncio": "import asyncio; asyncio.run(asyncio.open_connection('example.invalid', 80))",
    "asyncio by address": "import asyncio; asyncio.run(asyncio.open_connection(ALIEN, 80))",
    "asyncio server": "import asyncio; asyncio.run(asyncio.start_server(print, None, 0))",
    "http.client": "import http.client; http.client.HTTPConnection(ALIEN).request('GET', '/')",
    "http.server": "import http.server as s; s.HTTPServer(('', 0), s.SimpleHTTPRequestHandler)",
    "urllib": "import urllib.request; urllib.request.urlopen('http://example.invalid/', timeout=1)",
    "xmlrpc": "import xmlrpc.client; xmlrpc.client.ServerProxy('http://example.invalid').f()",
    "ftplib": "import ftplib; ftplib.FTP('example.invalid')",
    "smtplib": "import smtplib; smtplib.SMTP('example.invalid')",
    "imaplib": "import imaplib; imaplib.IMAP4('example.invalid')",
    "ssl": "import ssl; ssl.create_default_context().wrap_socket(tcp(), server_hostname='x').connect((ALIEN, 443))",
    "multiprocessing": "from multiprocessing.connection import Client; Client((ALIEN, 80))",
    "logging": "from logging.handlers import SysLogHandler; SysLogHandler((ALIEN, 514), socktype=socket.SOCK_STREAM)",
    "httpx": "import httpx; httpx.get('http://example.invalid')",
    "httpx, asynchronous": "import asyncio, httpx; asyncio.run(httpx.AsyncClient().get('http://example.invalid'))",
    "requests": "import requests; requests.get('http://example.invalid')",
    "urllib3": "import urllib3; urllib3.PoolManager().request('GET', 'http://example.invalid', retries=False)",
    "aiohttp": """
import aiohttp, asyncio
async def get():
    async with aiohttp.ClientSession() as session:
        await session.get('http://example.invalid')
asyncio.run(get())
""",
}


def test_every_librarys_request_is_refused_too() -> None:
    modules = {name: name.partition(",")[0].partition(" ")[0] for name in LIBRARIES}
    here = {name: code for name, code in LIBRARIES.items() if find_spec(modules[name])}
    code = """
    offline.shut()
    for name, attempt in json.loads(sys.argv[1]).items():
        before = len(offline.refused)
        with contextlib.suppress(Exception), contextlib.redirect_stderr(None):
            exec(attempt, dict(globals()))
        if len(offline.refused) == before:
            print(name)
    """
    assert len(here) >= 13 and said(code, json.dumps(here)) == ""


# Opening, and other processes


def test_only_an_opened_context_may_use_the_network_and_it_shuts_again() -> None:
    code = """
    offline.shut()
    attempt = (udp().connect, (ALIEN, 9))
    child = [sys.executable, "-c", "from goalcover_local import offline; print(offline.is_shut())"]
    shut_in = lambda: subprocess.run(child, capture_output=True, text=True).stdout.strip()
    with offline.opened():
        inside = offline.is_shut(), refuses(*attempt), shut_in()
        tcp().listen()
    outside = offline.is_shut(), refuses(*attempt), shut_in()
    try:
        with offline.opened():
            raise ValueError
    except ValueError:
        after = offline.is_shut(), refuses(*attempt)
    print(inside, outside, after)
    """
    assert said(code) == "(False, False, 'False') (True, True, 'True') (True, True)"


def test_what_was_open_before_stays_open_after_an_opened_context() -> None:
    code = """
    with offline.opened():
        pass
    print(offline.is_shut(), offline.SHUT_IN_WORKERS in os.environ)
    """
    assert said(code) == "False False"


def test_shutting_twice_refuses_once() -> None:
    code = """
    offline.shut(); offline.shut()
    refuses(udp().connect, (ALIEN, 9))
    print(len(offline.refused), os.environ["PYTHONPATH"].split(os.pathsep).count(str(offline.GUARD_FOLDER)))
    """
    assert said(code) == "1 1"


def test_threads_are_refused_too() -> None:
    code = """
    import threading
    offline.shut()
    found = []
    thread = threading.Thread(target=lambda: found.append(refuses(udp().connect, (ALIEN, 9))))
    thread.start(); thread.join()
    print(found)
    """
    assert said(code) == "[True]"


WORKER = """
import socket
from goalcover_local.errors import NetworkRefused

def tried(_=None):
    for address in (("192.0.2.1", 9), ("goalcover.invalid", 9)):
        try:
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(address)
            return "open"
        except NetworkRefused:
            pass
    return "shut"

class Rows:
    def __len__(self):
        return 1
    def __getitem__(self, number):
        return tried()
"""
"""A module that knows nothing of the guard, for processes to import."""


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of that module, on the path of every Python."""
    (tmp_path / "worker.py").write_text(WORKER, "utf-8")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    return tmp_path


def test_workers_of_every_kind_are_shut_and_tell_the_ledger(worker: Path) -> None:
    code = """
    import multiprocessing, worker
    offline.shut()
    for method in ("fork", "spawn", "forkserver"):
        with multiprocessing.get_context(method).Pool(1) as pool:
            print(pool.apply(worker.tried), end=" ")
    child = [sys.executable, "-c", "import worker; print(worker.tried())"]
    print(subprocess.run(child, capture_output=True, text=True).stdout.strip(), offline.refused)
    """
    assert said(code) == "shut shut shut shut []"
    assert noted() == [("socket.connect", ALIEN), ("socket.connect", "goalcover.invalid")] * 4


def test_torchs_loaders_workers_are_shut(worker: Path) -> None:
    code = """
    import worker
    from torch.utils.data import DataLoader
    offline.shut()
    print([[*DataLoader(worker.Rows(), num_workers=1, multiprocessing_context=how)] for how in ("fork", "spawn")])
    """
    assert said(code) == "[[['shut']], [['shut']]]"


@pytest.mark.parametrize("shut", [True, False])
def test_the_machines_own_start_of_python_is_not_lost(worker: Path, shut: bool) -> None:
    (worker / "sitecustomize.py").write_text("import os\nos.environ['STARTED'] = 'yes'\n", "utf-8")
    code = f"""
    offline.shut()
    with contextlib.nullcontext() if {shut} else offline.opened():
        child = [sys.executable, "-c", "import os, worker; print(os.environ.get('STARTED'), worker.tried())"]
        print(subprocess.run(child, capture_output=True, text=True).stdout.strip())
    """
    assert said(code) == f"yes {'shut' if shut else 'open'}"


def test_a_python_that_cannot_be_shut_is_not_started(tmp_path: Path) -> None:
    (tmp_path / "goalcover_local").mkdir()
    (tmp_path / "goalcover_local" / "__init__.py").write_text("raise RuntimeError('broken')", "utf-8")
    path = os.pathsep.join([str(offline.GUARD_FOLDER), str(tmp_path)])
    variables = {**os.environ, **offline.for_children(), "PYTHONPATH": path}
    child = [sys.executable, "-c", "print('started')"]
    ran = subprocess.run(child, capture_output=True, text=True, env=variables)
    assert (ran.returncode, ran.stdout) == (1, "") and "cannot shut the network" in ran.stderr


def test_children_keep_the_path_they_had(monkeypatch: pytest.MonkeyPatch) -> None:
    guard = str(offline.GUARD_FOLDER)
    for before, after in (("", guard), ("/a:/b", f"{guard}:/a:/b"), (f"/a:{guard}", f"{guard}:/a")):
        monkeypatch.setenv("PYTHONPATH", before)
        assert offline.for_children() == {"GOALCOVER_SHUT": "1", "PYTHONPATH": after}
    monkeypatch.delenv("PYTHONPATH")
    assert offline.for_children()["PYTHONPATH"] == guard


@pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed")
def test_a_server_that_is_started_is_shut_from_its_beginning(tmp_path: Path) -> None:
    from goalcover_local.engines import server_engine

    how = {"name": "tiny", "port": 8000, "context": 600, "precision": "float32"}
    _, variables = server_engine.command(tmp_path, **how)  # type: ignore[arg-type]
    assert variables.items() >= offline.for_children().items()


# Witnesses


def test_a_refused_attempt_is_put_into_the_ledger_where_nobody_watches() -> None:
    said("offline.shut(); refuses(udp().connect, (ALIEN, 9)); refuses(udp().connect, ('é' * 300, 9))")
    assert noted() == [("socket.connect", ALIEN), ("socket.connect", hidden("é" * 300))]
    assert ledger.read().problems == []


def test_who_watches_is_told_instead_and_cannot_hide_a_refusal() -> None:
    code = """
    told = []
    def breaks(event, host):
        raise NetworkError
    def reaches_out(event, host):
        socket.gethostbyname("witness.invalid")
    for witness in (breaks, reaches_out, lambda *what: told.append(what)):
        offline.watch(witness)
    offline.shut()
    print(refuses(udp().connect, (ALIEN, 9)), refuses(tcp().listen), told, offline.refused[0])
    """
    told = f"[('socket.connect', '{ALIEN}'), ('socket.listen', '0.0.0.0')]"
    assert said(code) == f"True True {told} socket.connect {ALIEN}"
    assert noted() == []


def test_a_ledger_that_cannot_be_written_hides_no_refusal(home: Path) -> None:
    home.write_text("no folder", "utf-8")
    assert said("offline.shut(); print(refuses(udp().connect, (ALIEN, 9)))") == "True"


def test_who_tries_for_ever_does_not_fill_the_ledger() -> None:
    code = """
    n = []
    offline.watch(lambda *_: n.append(1))
    offline.shut()
    print(all(refuses(socket.getaddrinfo, "x.invalid", 1) for _ in range(offline.MOST_TOLD + 5)), len(n))
    """
    assert said(code) == f"True {offline.MOST_TOLD}"


def test_knocking_on_purpose_is_refused_and_not_recorded() -> None:
    code = """
    offline.shut()
    with offline.knocking():
        print(refuses(udp().connect, (ALIEN, 9)), offline.refused)
    print(refuses(udp().connect, (ALIEN, 9)), len(offline.refused))
    """
    assert said(code).splitlines() == ["True []", "True 1"]
    assert noted() == [("socket.connect", ALIEN)]


# Switches


def test_the_switches_are_set_for_this_process_and_its_children() -> None:
    code = """
    os.environ["HF_HUB_OFFLINE"] = "0"
    offline.switch_offline()
    child = "import json, os; print(json.dumps(dict(os.environ)))"
    told = json.loads(subprocess.run([sys.executable, "-c", child], capture_output=True, text=True).stdout)
    print(all(told[name] == value for name, value in offline.SWITCHES.items()))
    """
    assert said(code) == "True"
    assert {"HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE", "DO_NOT_TRACK"} <= set(offline.SWITCHES)


def test_the_command_is_shut_before_it_does_anything() -> None:
    code = """
    from goalcover_local.cli import main
    main.main.callback = None
    sys.argv = ["goalcover", "--version"]
    try:
        main.run()
    except SystemExit:
        pass
    print(offline.is_shut(), os.environ["HF_HUB_OFFLINE"])
    """
    assert said(code).splitlines()[-1] == "True 1"
    assert os.environ.get("HF_HUB_OFFLINE") == "1", "and so are these tests"
