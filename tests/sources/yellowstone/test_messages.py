"""The messages in Python are those of geyser.proto."""

import subprocess
import sys
from pathlib import Path

import pytest

from headrace.sources.yellowstone import messages

FOLDER = Path(messages.__file__).parent
SOURCE_ROOT = FOLDER.parents[3]


def test_python_was_made_from_the_proto_file(tmp_path: Path) -> None:
    pytest.importorskip("grpc_tools")
    proto = (FOLDER / "geyser.proto").relative_to(SOURCE_ROOT)
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I.", f"--python_out={tmp_path}", f"--pyi_out={tmp_path}"]
    subprocess.run([*command, str(proto)], cwd=SOURCE_ROOT, check=True, timeout=60)
    for name in ("geyser_pb2.py", "geyser_pb2.pyi"):
        assert (FOLDER / name).read_text() == (tmp_path / proto.parent / name).read_text(), "run: make messages"
