import sys
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(HERE / "harness"), str(HERE / "servers"), str(HERE.parent / "python/tests"), str(HERE.parent / "python/examples")]
