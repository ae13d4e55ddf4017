"""Writes `src/scopeward/_proto` from `../../proto`; with `--check` only compares.

Run it with a Python that has the one version of `grpcio-tools` below: an older generator's code runs with more versions of
`protobuf`.
"""

import importlib.metadata
import importlib.resources
import pathlib
import re
import sys
import tempfile

from grpc_tools import protoc  # type: ignore[import-untyped]

GENERATOR = "1.72.2"
HERE = pathlib.Path(__file__).resolve().parent
PROTO = HERE.parents[1] / "proto"
TARGET = HERE / "src/scopeward/_proto"
INIT = '"""Generated from `proto/scopeward/v1` by `generate.py`. Not part of the public interface."""\n'


def generated() -> dict[str, str]:
    """The files as they should be, by name."""
    files = {"__init__.py": INIT}
    well_known = importlib.resources.files("grpc_tools") / "_proto"
    with tempfile.TemporaryDirectory() as folder:
        sources = sorted(str(path) for path in PROTO.glob("scopeward/v1/*.proto"))
        arguments = [f"-I{PROTO}", f"-I{well_known}", f"--python_out={folder}", f"--pyi_out={folder}", *sources]
        if protoc.main(["protoc", *arguments]) != 0:
            sys.exit("protoc failed")
        for path in pathlib.Path(folder, "scopeward/v1").iterdir():
            # The package has the name of the proto package, so the modules cannot stand where protoc puts them.
            text = re.sub(r"^from scopeward\.v1 import ", "from . import ", path.read_text(), flags=re.MULTILINE)
            files[path.name] = text
    return files


def main() -> None:
    if (version := importlib.metadata.version("grpcio-tools")) != GENERATOR:
        sys.exit(f"grpcio-tools is {version}, and {GENERATOR} is wanted")
    files = generated()
    if "--check" in sys.argv[1:]:
        present = {path.name: path.read_text() for path in TARGET.iterdir() if path.is_file()}
        if stale := sorted(name for name in files.keys() | present.keys() if files.get(name) != present.get(name)):
            sys.exit(f"not current: {', '.join(stale)}; run generate.py")
        return
    for path in TARGET.glob("*"):
        if path.is_file():
            path.unlink()
    for name, text in files.items():
        (TARGET / name).write_text(text)


if __name__ == "__main__":
    main()
