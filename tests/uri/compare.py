"""What URI parsers in common use read in each spelling of spellings.json: prints the table parsers.tsv.

Runs the parsers that are installed (python3, node, go, java, cargo); a column whose parser is missing is taken over from the
table that is there, and said so on stderr. Written by `python3 tests/uri/compare.py > parsers.tsv`; the suite compares our own
verdict with the table, and with SCOPEWARD_URI_PARSERS=1 runs this again.
"""
import csv
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

here = pathlib.Path(__file__).resolve().parent
spellings = json.loads((here / "spellings.json").read_text())
work = tempfile.mkdtemp(prefix="scopeward-uri-")
build = f"--target-dir={work}/target"
parsers = {
    "python": [sys.executable, here / "read.py"],
    "node": ["node", here / "read.mjs"],
    "go": ["go", "run", here / "read.go"],
    "java-uri": ["java", here / "Read.java"],
    "java-url": ["java", here / "Read.java", "url"],
    "rust-url": ["cargo", "run", "--quiet", f"--manifest-path={here}/rust/Cargo.toml", build],
}


def shown(found):
    """`scheme host port` with `-` for nothing; `error` where the parser refuses the text."""
    return "error" if found is None else " ".join(json.dumps(part)[1:-1].replace(" ", "\\u0020") or "-" for part in found)


def known(name):
    with open(here / "parsers.tsv", newline="") as table:
        return [row[name] for row in csv.DictReader(table, delimiter="\t", quoting=csv.QUOTE_NONE)]


columns = {}
for name, command in parsers.items():
    if not shutil.which(str(command[0])):
        print(f"{name}: `{command[0]}` is not installed, its column is taken over", file=sys.stderr)
        columns[name] = known(name)
        continue
    asked = "".join(json.dumps(text) + "\n" for text in spellings)
    ran = subprocess.run([str(part) for part in command], input=asked, capture_output=True, text=True, check=False)
    if ran.returncode:
        sys.exit(f"{name} failed:\n{ran.stderr}")
    columns[name] = [shown(json.loads(line)) for line in ran.stdout.splitlines()]
    assert len(columns[name]) == len(spellings), name

shutil.rmtree(work, ignore_errors=True)
print("\t".join(["spelling", *parsers]))
for at, text in enumerate(spellings):
    print("\t".join([json.dumps(text)[1:-1], *(columns[name][at] for name in parsers)]))
