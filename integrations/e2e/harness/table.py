"""Writes the tables of `docs/guides/clients.md` from `results.json`; with `--check` only compares."""

from __future__ import annotations

import json
import sys
from typing import Any

from cases import CASES
from run import HERE, RESULTS, SERVERS, clients

PAGE = HERE.parents[1] / "docs/guides/clients.md"
Result = dict[str, Any]


def generated(results: dict[str, dict[str, dict[str, Result]]]) -> dict[str, str]:
    """The text of each part of the page, by its name in the markers."""
    known = clients()
    return {
        "cases": "".join(f"- **{case.title}**: {case.about}\n" for case in CASES),
        "summary": summary(results, known),
        "details": "".join(details(known[name].title, results[name], ran(results)) for name in known if name in results),
        "servers": "".join(f"- {SERVERS[name].title}\n" for name in ran(results)),
    }


def summary(results: dict[str, dict[str, dict[str, Result]]], known: dict[str, Any]) -> str:
    names = [name for name in known if name in results]
    lines = [
        "| | " + " | ".join(known[name].title for name in names) + " |",
        "| --- |" + " --- |" * len(names),
    ]
    for case in CASES:
        words = []
        for name in names:
            found = [outcome(result) for result in results[name].get(case.name, {}).values()]
            words.append(", or ".join(dict.fromkeys(found)) or "–")
        lines.append(f"| {case.title} | " + " | ".join(words) + " |")
    return "\n".join(lines) + "\n"


def outcome(result: Result) -> str:
    """In a word or two."""
    if "cannot" in result:
        return "cannot"
    failed = [step["step"] for step in result["steps"] if step["error"] is not None]
    if "write" in failed:
        return "stays without"
    if any(step["step"] == "write" for step in result["steps"]):
        logins = len(result["authorizations"])
        return "works" if logins == 2 else f"{logins} logins"
    if result["steps"][-1]["error"] is not None:
        return "refused"
    return "works" if not failed else "works again"


def ran(results: dict[str, dict[str, dict[str, Result]]]) -> list[str]:
    """The servers that any client ran against."""
    found = {server for by_case in results.values() for by_server in by_case.values() for server in by_server}
    return [server for server in SERVERS if server in found]


def details(title: str, by_case: dict[str, dict[str, Result]], all_servers: list[str]) -> str:
    servers = [server for server in SERVERS if any(server in found for found in by_case.values())]
    where = "all servers" if servers == all_servers else ", ".join(SERVERS[server].title for server in servers)
    lines = [f"### {title}", "", f"At {where}.", "", "| case | registers with | asks with | gets | the user sees |", "| --- | --- | --- | --- | --- |"]
    for case in CASES:
        groups: dict[str, list[str]] = {}
        for server, result in by_case.get(case.name, {}).items():
            groups.setdefault(row(result), []).append(server)
        ordered = sorted(groups.items(), key=lambda group: -len(group[1]))
        for number, (cells, servers) in enumerate(ordered):
            where = ", ".join(SERVERS[server].title for server in SERVERS if server in servers)
            lines.append(f"| {case.title if number == 0 else f'… at {where}'} | {cells} |")
    return "\n".join(lines) + "\n\n"


def row(result: Result) -> str:
    if "cannot" in result:
        return f"– | – | – | cannot: {result['cannot']}"
    registered = [sent(found["sent"]) for found in result["registrations"]]
    if (extra := sum(not found["got"][:1].isdigit() for found in result["registrations"])) > 1:
        registered = [*dict.fromkeys(registered), f"({extra} clients)"]
    asked = [sent(found["sent"]) for found in result["authorizations"]]
    got = [grant(found["got"]) for found in result["authorizations"]]
    seen = [text for step in result["steps"] if (text := sight(step))]
    if not seen:
        seen = ["all calls work"] if len(result["steps"]) > 1 and result["steps"][-1]["step"] != "connect" else ["logged in"]
    elif result["steps"][-1]["error"] is None and result["steps"][-1]["step"] == "connect":
        seen.append("logged in")
    if result.get("refreshes"):
        got.append("(refreshes instead)")
    return " | ".join(joined(cells) for cells in (registered, asked, got, seen))


def joined(cells: list[str]) -> str:
    """One after another; what repeats at once is said once."""
    kept = [cell for number, cell in enumerate(cells) if number == 0 or cell != cells[number - 1]]
    return ", then ".join(kept).replace("|", "\\|") or "–"


def sent(scope: Any) -> str:
    if scope is None:
        return "no scope"
    return f"`{scope.replace(' ', '␣', 1) if scope.startswith(' ') else scope}`" if scope else "empty"


def grant(got: str) -> str:
    error, separator, _ = got.partition(": ")
    return error if separator else f"`{got}`"


def sight(step: dict[str, str | None]) -> str:
    """What the application and the page say where a step failed."""
    if step["error"] is None:
        return ""
    error, page = " ".join(str(step["error"]).split()), step.get("page") or ""
    shown = [f"“{error}”"]
    if page and page.partition(": ")[2] not in error:
        shown.append(f"at the redirect URI “{page}”")
    text = ", ".join(shown)
    return text if step["step"] == "connect" else f"`{step['step']}`: {text}"


def filled(page: str, parts: dict[str, str]) -> str:
    for name, text in parts.items():
        begin, end = f"<!-- {name}: generated by integrations/e2e -->\n", f"<!-- end of {name} -->"
        before, _, rest = page.partition(begin)
        _, separator, after = rest.partition(end)
        if not separator:
            raise SystemExit(f"{PAGE}: no place for {name}")
        page = f"{before}{begin}\n{text.rstrip()}\n\n{end}{after}"
    return page


def main() -> None:
    page = PAGE.read_text()
    fresh = filled(page, generated(json.loads(RESULTS.read_text())))
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(fresh)
    elif fresh != page:
        raise SystemExit("docs/guides/clients.md is not current; run integrations/e2e/test.sh all")


if __name__ == "__main__":
    main()
