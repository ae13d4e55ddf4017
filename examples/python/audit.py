"""Follows the audit stream, one JSON line for each event, and resumes after the last one.

At least once: the cursor is written after an event was handled, so a crash repeats one and loses none.
"""

import argparse
import base64
import json
import os
import pathlib
import sys
import time

import grpc
from google.protobuf.json_format import MessageToDict

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "proto"))
pb, services = grpc.protos_and_services("scopeward/v1/audit.proto")

SERVER = os.environ.get("SCOPEWARD_SERVER", "http://127.0.0.1:50551").removeprefix("http://")
KEEPALIVE = [("grpc.keepalive_time_ms", 30_000)]  # notices a server that is gone without a word


def save(path, log_id, sequence):
    """Replaces the cursor in one step: a new file, synced, renamed over the old one."""
    fresh = path.with_name(path.name + ".new")
    with fresh.open("w") as file:
        json.dump({"log_id": log_id, "sequence": sequence}, file)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def line(kind, step):
    """The JSON of audit lines: hashes in hexadecimal digits, a gap in a member of its own."""
    fields = MessageToDict(step, always_print_fields_with_no_presence=True)
    for name in {"prevHash", "hash"} & fields.keys():
        fields[name] = base64.b64decode(fields[name]).hex()
    return json.dumps({"gap": fields} if kind == "gap" else fields)


def read(audit, path, follow):
    request = pb.StreamAuditEventsRequest(follow=follow)
    if path.exists():
        cursor = json.loads(path.read_text())
        # Earlier versions of this file called it `after_sequence`.
        sequence = cursor.get("sequence", cursor.get("after_sequence"))
        request.log_id, request.after_sequence = cursor["log_id"], int(sequence)
    answers = audit.StreamAuditEvents(request)
    next(answers, None)  # a checkpoint that says where the log ends, and no place to resume from
    for answer in answers:
        step = getattr(answer, kind := answer.WhichOneof("message"))
        if kind != "checkpoint":  # an event, or a gap: events that could not be recorded
            print(line(kind, step), flush=True)
        save(path, step.log_id, step.durable_sequence if kind == "checkpoint" else step.sequence)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--cursor-file", type=pathlib.Path, required=True)
    parser.add_argument("--no-follow", action="store_true")
    options = parser.parse_args()
    with grpc.insecure_channel(SERVER, KEEPALIVE) as channel:
        follow, audit = not options.no_follow, services.AuditServiceStub(channel)
        while True:
            try:
                read(audit, options.cursor_file, follow)  # when following it ends only with the server
            except grpc.RpcError as problem:
                print(f"{problem.code().name}: {problem.details()}", file=sys.stderr)
                # Only this mends itself; the others want a person (OUT_OF_RANGE, DATA_LOSS, ...).
                if not follow or problem.code() != grpc.StatusCode.UNAVAILABLE:
                    sys.exit(1)
            if not follow:
                break
            time.sleep(1)
