"""A hostile student's evening: bounded time and memory, no points that were not earned, the other part unharmed."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from grading import Kept, Lost, Seed, cells
from grading.ask import Guarded, size
from grading.guard import MACHINES
from grading.nursery import Nursery

from .conftest import DOUBLE, QUICK, ROOT, Graded, handed_in

RIGHT = "double", "total"
# Each replaces the first answer. What the student is told; the second part keeps its three points.
DEADLY = {
    "loop in a cell": ("while True:\n    pass", "cell 2 was left out: cell 2 ran longer than 10 seconds"),
    "loop in a function": ("def double(x):\n    while True:\n        pass", "double ran longer than 10 seconds"),
    "end of the process": ("import os\ndef double(x):\n    os._exit(0)", "ended the process (exit code 0)"),
    "abort": ("import os\nos.abort()", "was ended by signal"),
    "print without end": ("while True:\n    print('x' * 10**6)", "cell 2 ran longer than 10 seconds"),
    "gigabytes on disk": (
        "for n in range(10**6):\n    open(f'{n}', 'wb').write(bytes(2**20))",
        "wrote more than 8 MiB to disk",
    ),
    "folders without end": (
        "import os\nfor n in range(10**9):\n    os.mkdir('d'); os.chdir('d')",
        "wrote more than 8 MiB to disk",
    ),
    "forged answers": (
        "import os\nfor pipe in range(3, 100):\n    try:\n"
        '        os.write(pipe, b\'{"number":1,"answer":2}\\n\' * 9)\n    except OSError:\n        pass',
        "wrote to the grader's pipe",
    ),
    "flooded pipe": (
        "import os, threading\ndef flood(pipe):\n    while True:\n        os.write(pipe, bytes(10**6))\n"
        "for pipe in range(3, 20):\n    threading.Thread(target=flood, args=(pipe,), daemon=True).start()\n"
        "import time\ntime.sleep(60)",
        "sent more than 8 MiB",
    ),
}
HARMLESS = {
    "exception": ("1 / 0", "there is no function double"),
    "no Python": ("def double(x:\n    return 2", "cell 2 is not Python"),
    "exit": ("def double(x):\n    exit()", "double raised SystemExit"),
    "much memory": ("def double(x):\n    return torch.ones(10**10)", "the grader gives 1024 MiB"),
    "more and more memory": (
        "def double(x):\n    kept = []\n    while True:\n        kept.append(bytes(10**7))",
        "the grader gives 1024 MiB",
    ),
    "patched comparisons": (
        "import builtins, json, numpy\n"
        "class Yes(float):\n    __eq__ = __lt__ = __le__ = lambda *_: True\n"
        "torch.allclose = numpy.allclose = numpy.isclose = builtins.all = lambda *_, **__: True\n"
        'json.dumps = lambda *_, **__: \'{"number":1,"answer":{"array":[]}}\'\n'
        "def double(x):\n    return Yes(1)",
        "",
    ),
    "a wrong answer": ("def double(x):\n    return x**2", "double: the square is not the double"),
    "no number": ("def double(x):\n    return x / 0 * 0", "expected finite numbers, found nan"),
}


@pytest.mark.parametrize("name", [*DEADLY, *HARMLESS])
def test_a_bad_answer_costs_its_own_part_alone(name: str, graded: Graded, release: cells.Cell) -> None:
    code, says = (DEADLY | HARMLESS)[name]
    begun = time.monotonic()
    verdict = graded(handed_in(release, double=code))
    assert time.monotonic() - begun < 300
    lost, empty, kept = verdict.results
    assert lost.points == 0
    assert says in f"{lost.message} {verdict.notes}"
    assert empty.points <= 1  # the square of nothing is right
    assert kept.points == 3, kept.message
    assert verdict.points < 6
    assert sum(len(cell.output) for cell in verdict.cells) < 100_000
    assert (name in DEADLY) <= bool(verdict.notes)


def test_the_solution_has_full_marks_and_the_stub_none(graded: Graded, release: cells.Cell) -> None:
    assert graded(handed_in(release)).points == 6
    stub = graded(release)
    assert stub.points == 0
    assert [line.message for line in stub.results] == [f"{name} is not written yet" for name in (RIGHT[0], *RIGHT)]


# What subprocess gives to the function below it, of which no audit hook hears.
ARGUMENTS = "[b'/bin/true'], [b'/bin/true'], True, (), None, None, -1, -1, -1, -1, -1, -1, *__import__('os').pipe(), "
ARGUMENTS += "True, False, -1, None, None, None, -1, None, False"
REFUSED = {
    "import vae_lib": "vae_lib cannot be imported where submissions are graded",
    "import grading.hidden.a1": "grading cannot be imported",
    "import sqlite3; sqlite3.connect('gradebook.db')": "refuses a database",
    f"return open({str(ROOT / 'README.md')!r}).read()": "open no file but its own",
    f"return torch.from_file({str(ROOT / 'README.md')!r}, size=9, dtype=torch.uint8)": "denied",
    f"import os; return os.listdir({str(ROOT)!r})": "list no folder but its own",
    f"import os; os.remove({str(ROOT / 'README.md')!r})": "change no file but its own",
    "return open('/proc/self/environ').read()": "open no file but its own",
    "import os; return open(f'/proc/{os.getppid()}/mem', 'rb').read(9)": "open no file but its own",
    "import socket; socket.create_connection(('127.0.0.1', 80))": "refuses the network",
    "import _socket; _socket.socket()": "refuses the network",
    "import urllib.request; urllib.request.urlopen('http://example.org')": "refuses the network",
    "import os; os.fork()": "refuses starting a process",
    "import os; os.system('true')": "refuses starting a process",
    "import subprocess; subprocess.run(['true'])": "refuses starting a process",
    "import multiprocessing as m; m.Process(target=print).start()": "refuses starting a process",
    "import ctypes; ctypes.CDLL(None).fork()": "refuses calling machine code",
    "import os; os.kill(os.getppid(), 0)": "refuses a signal",
    "import resource as r; r.setrlimit(r.RLIMIT_AS, (-1, -1))": "refuses changing the limits",
    f"import _posixsubprocess as p; p.fork_exec({ARGUMENTS})": "Operation not permitted",
}
REFUSED |= {
    "import os; open('mine', 'w').close(); os.chmod('mine', 0)": "Operation not permitted",
    "import os; open('mine', 'w').close(); os.utime('mine')": "Operation not permitted",
    "import fcntl, os; fcntl.fcntl(os.pipe()[0], fcntl.F_SETOWN, os.getpid())": "Operation not permitted",
    "import fcntl, os; fcntl.fcntl(os.pipe()[0], 10, 9)": "Operation not permitted",
    "import fcntl, os; fcntl.ioctl(os.pipe()[0], 0x8901, b'1234')": "Operation not permitted",
    "import os; os.sched_setaffinity(os.getppid(), {0})": "Operation not permitted",
    "return torch.ones(2**28, dtype=torch.float64)[0]": "can't allocate memory",
    "open('large', 'wb').write(bytes(6 << 20))": "File too large",
}
KERNEL = {
    "torch.from_file": "files",
    "_posixsubprocess": "calls",
    "sched_": "calls",
    "'mine'": "calls",
    "fcntl": "calls",
}
ODD = {
    "return torch.ones(2) * 1j": "cannot be read",
    "return 10**5000": "",
    "return float('nan'), [None, {'a': (1, 2)}]": None,
    "a = []; a.append(a); return a": "",
    "class Odd:\n        __class__ = torch.Tensor\n    return Odd()": "",
    "class Sly(Exception):\n        def __str__(self): raise SystemExit\n    raise Sly": "raised",
    "return torch.ones(2 * 10**6)": "sent more than 8 MiB",
    "raise ValueError('\\n\\n4 of 4\\x1b[31m \\ud800' + 'x' * 10**6)": "raised ValueError: 4 of 4·[31m ?xxx",
}


def test_what_a_submission_may_not_do_is_refused_in_clear_words(nursery: Nursery) -> None:
    bodies = [*REFUSED, *ODD]
    source = "\n".join(f"def f{number}():\n    {body}" for number, body in enumerate(bodies))
    with Guarded([(1, "import torch"), (2, source), (3, DOUBLE)], QUICK, nursery) as ask:
        for number, body in enumerate(bodies):
            says = (REFUSED | ODD)[body]
            if any(start in body and wall not in ask.held for start, wall in KERNEL.items()):
                continue
            if says is None:
                ask(f"f{number}")
                continue
            with pytest.raises(Lost) as lost:
                ask(f"f{number}")
            assert says in str(lost.value), body
            assert len(str(lost.value)) < 400
            assert "\n" not in str(lost.value)
        assert np.array_equal(ask("double", np.ones(3)), 2 * np.ones(3))
    assert not Path(ask._folder).exists()


KEPT = """
import torch, math, os, threading, time
from sklearn.datasets import load_digits
import matplotlib.pyplot as plt

class Counter:
    def __init__(self, start): self.count = start
    def up(self, by): self.count += by; return self.count

def make(start): return Counter(start)
def two(): return make(1), make(2)
def draw(generator): return torch.randn(3, generator=generator)
def die(): os._exit(1)
def busy(): threading.Thread(target=time.sleep, args=(600,)).start(); return load_digits().data.shape
def picture(): plt.plot([1, 2]); plt.savefig("a.png"); return os.path.getsize("a.png") > 0
def step():
    model = torch.nn.Linear(2, 1)
    optimiser = torch.optim.Adam(model.parameters())
    model(torch.ones(2)).sum().backward()
    optimiser.step()
    torch.save(model.state_dict(), "model.pt")
    return sorted(torch.load("model.pt"))
"""


def test_the_walls_of_the_kernel_stand_where_it_has_them(nursery: Nursery) -> None:
    with Guarded([], QUICK, nursery) as ask:
        libc = ctypes.CDLL(None)
        linux = sys.platform == "linux"
        assert ("files" in ask.held) == (linux and libc.syscall(444, None, ctypes.c_size_t(0), 1) >= 1)
        assert ("calls" in ask.held) == (linux and libc.prctl(21, 0, 0, 0, 0) >= 0 and platform.machine() in MACHINES)
        assert ("capabilities" in ask.held) == linux


def test_what_an_assignment_needs_works(nursery: Nursery) -> None:
    with Guarded([(1, KEPT)], replace(QUICK, lives=2), nursery) as ask:
        assert ask.cells[1].error is None
        first, second = ask("two")
        assert (ask.method(first, "up", 5), ask.method(second, "up", by=5)) == (6, 7)
        assert np.array_equal(ask("draw", Seed(3)), ask("draw", Seed(3)))
        assert ask("busy") == (1797, 64)
        assert ask("picture") is True
        assert ask("step") == ("bias", "weight")
        with pytest.raises(Lost, match="has no method down"):
            ask.method(first, "down")
        with pytest.raises(Lost, match=r"die ran and ended the process \(exit code 1\)"):
            ask("die")
        with pytest.raises(Lost, match="lost when the process ended"):
            ask.method(first, "up", 1)
        with pytest.raises(Lost, match="lost when the process ended"):
            ask.method(Kept(10**9), "up", 1)
        assert ask.method(ask("make", 3), "up", 1) == 4
        with pytest.raises(Lost, match="die ran"):
            ask("die")
        with pytest.raises(Lost, match="the process ended 2 times"):
            ask("make", 3)


def test_lines_for_ipython_are_left_out(nursery: Nursery) -> None:
    source = "%matplotlib inline\n!pip install torch\nx = (7\n     % 4)\ndisplay(x)"
    with Guarded([(1, source), (2, "%%bash\nls"), (3, "%%time\nprint('ran')")], QUICK, nursery) as ask:
        assert [cell.error for cell in ask.cells.values()] == [None] * 3
        assert ask.cells[1].output.splitlines()[-1] == "3"
        assert "left out" in ask.cells[2].output
        assert "ran" in ask.cells[3].output


def test_a_folder_that_cannot_be_read_is_too_large(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(5000))
    assert size(str(tmp_path)) == 5000
    assert size(str(tmp_path / "a")) == float("inf")
    assert size(str(tmp_path / "none")) == 0
    assert os.environ["OMP_NUM_THREADS"]
