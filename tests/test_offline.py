"""The air gap holds. Every test runs in a process of its own, since an audit hook cannot be taken out again."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

from goalcover_local import offline

ALIEN = "192.0.2.1"
"""An address that belongs to nobody (RFC 5737)."""

BEGINNING = """
import json, os, socket
from goalcover_local import offline
from goalcover_local.errors import NetworkRefused

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
"""


def said(code: str) -> str:
    """What a fresh process prints that runs this code."""
    program = BEGINNING + textwrap.dedent(code)
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


def test_before_it_is_shut_nothing_is_refused() -> None:
    code = f"print(offline.is_shut(), refuses(udp().connect, ('{ALIEN}', 9)))"
    assert said(code) == "False False"


@pytest.mark.parametrize(
    "attempt",
    [
        f"udp().connect, ('{ALIEN}', 9)",
        f"udp().connect_ex, ('{ALIEN}', 9)",
        f"socket.create_connection, ('{ALIEN}', 9), 0.1",
        f"udp().sendto, b'x', ('{ALIEN}', 9)",
        f"udp().sendto, b'x', 0, ('{ALIEN}', 9)",
        f"udp().sendmsg, [b'x'], [], 0, ('{ALIEN}', 9)",
        "udp().connect, ('10.0.0.1', 53)",
        "udp().connect, ('0.0.0.1', 9)",
        "udp(socket.AF_INET6).connect, ('2001:db8::1', 9)",
        "socket.getaddrinfo, 'example.invalid', 443",
        "socket.getaddrinfo, b'example.invalid', 443",
        f"socket.getaddrinfo, '{ALIEN}', 443",
        "socket.getaddrinfo, 'localhost.example.invalid', 443",
        "socket.gethostbyname, 'example.invalid'",
        "socket.gethostbyname_ex, 'example.invalid'",
        f"socket.gethostbyaddr, '{ALIEN}'",
        f"socket.getnameinfo, ('{ALIEN}', 9), 0",
    ],
)
def test_whatever_leaves_the_machine_is_refused_and_remembered(attempt: str) -> None:
    code = f"""
    offline.shut()
    print(refuses({attempt}), len(offline.refused))
    """
    assert said(code) == "True 1"


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
    socket.getaddrinfo("localhost", 80)
    socket.getaddrinfo(None, 0)
    socket.gethostbyname("127.0.0.1")
    socket.getnameinfo(("127.0.0.1", 9), socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)
    print(there.recv(9), receiver.recv(9), receiver.recv(9), other.recv(9), offline.refused)
    """
    assert said(code) == "b'well' b'met' b'again' b'too' []"


@pytest.mark.parametrize(
    ("host", "is_loopback"),
    [
        ("127.3.2.1", True),
        ("::1", True),
        ("::1%lo", True),
        ("", True),
        ("localhost", True),
        ("::ffff:192.0.2.1", False),
        ("0.0.0.0", False),
        ("127.0.0.1.example.invalid", False),
    ],
)
def test_loopback_is_told_from_what_looks_like_it(host: str, is_loopback: bool) -> None:
    assert offline._loopback(host) == is_loopback


def test_a_higher_librarys_request_is_refused_too() -> None:
    code = """
    import urllib.request
    offline.shut()
    def fetch():
        try:
            urllib.request.urlopen("http://example.invalid/", timeout=1)
        except urllib.error.URLError as error:
            raise error.reason
    print(refuses(fetch), offline.refused)
    """
    assert said(code) == "True ['socket.getaddrinfo example.invalid']"


def test_only_an_opened_context_may_use_the_network_and_it_shuts_again() -> None:
    code = f"""
    offline.shut()
    attempt = (udp().connect, ('{ALIEN}', 9))
    with offline.opened():
        inside = offline.is_shut(), refuses(*attempt)
    outside = offline.is_shut(), refuses(*attempt)
    try:
        with offline.opened():
            raise ValueError
    except ValueError:
        after = offline.is_shut(), refuses(*attempt)
    print(inside, outside, after)
    """
    assert said(code) == "(False, False) (True, True) (True, True)"


def test_what_was_open_before_stays_open_after_an_opened_context() -> None:
    code = """
    with offline.opened():
        pass
    print(offline.is_shut())
    """
    assert said(code) == "False"


def test_shutting_twice_refuses_once() -> None:
    code = f"""
    offline.shut(); offline.shut()
    refuses(udp().connect, ('{ALIEN}', 9))
    print(len(offline.refused))
    """
    assert said(code) == "1"


def test_threads_are_refused_too() -> None:
    code = f"""
    import threading
    offline.shut()
    found = []
    thread = threading.Thread(target=lambda: found.append(refuses(udp().connect, ('{ALIEN}', 9))))
    thread.start(); thread.join()
    print(found)
    """
    assert said(code) == "[True]"


def test_the_switches_are_set_for_this_process_and_its_children() -> None:
    code = """
    import subprocess, sys
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
    import sys
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
