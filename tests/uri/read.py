"""Reads a JSON string from each line, prints scheme, host and port as urllib.parse sees them, or null."""
import json
import sys
from urllib.parse import urlsplit

for line in sys.stdin:
    try:
        parts = urlsplit(json.loads(line))
        found = [parts.scheme, parts.hostname or "", "" if parts.port is None else str(parts.port)]
    except ValueError:
        found = None
    print(json.dumps(found))
