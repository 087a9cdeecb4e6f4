"""Processor time of processes that this one started."""

import os
import subprocess
import sys

from headrace.bench.cpu import spent_s, used_s

BUSY = "import time; end = time.process_time() + 0.2\nwhile time.process_time() < end: pass\nprint(); input()"


def test_only_the_time_of_children_is_counted() -> None:
    before = used_s(os.getpid())
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", BUSY], stdin=pipe, stdout=pipe) as child:
        assert child.stdout is not None
        child.stdout.readline()
        after = used_s(os.getpid())
        child.communicate(b"\n")
    if after is None:
        assert spent_s(before, after) == -1
    else:
        assert child.pid in after
        assert os.getpid() not in after
        assert spent_s(before, after, [child.pid]) >= 0.18
        assert spent_s(before, after, [-1]) == 0
