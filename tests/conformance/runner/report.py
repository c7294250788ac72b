"""What a run says at its end, and the table of docs/clients.md."""

import re
from pathlib import Path

MARKS = {"passed": "yes", "failed": "**no**", "skipped": "-"}
BEGIN, END = "<!-- conformance table -->", "<!-- end of the table -->"


def table(scenarios, languages, verdicts):
    """In Markdown: a line for each scenario, a column for each language."""
    lines = [
        "| scenario | promise | " + " | ".join(language.name for language in languages) + " |",
        "|---|---|" + "---|" * len(languages),
    ]
    for scenario in scenarios:
        marks = (MARKS.get(verdicts.get((language.key, scenario.name)), "?") for language in languages)
        lines.append(f"| `{scenario.name}` | {scenario.promise} | " + " | ".join(marks) + " |")
    return "\n".join(lines)


def write_table(path, text):
    """Replaces what lies between the two marks of the file."""
    file = Path(path)
    old = file.read_text()
    new = re.sub(f"{BEGIN}.*{END}", lambda _: f"{BEGIN}\n{text}\n{END}", old, flags=re.DOTALL)
    if BEGIN not in old:
        raise ValueError(f"{path} has no place for the table")
    file.write_text(new)


def plain_table(scenarios, languages, verdicts):
    """For a terminal."""
    width = max((len(scenario.name) for scenario in scenarios), default=8)
    lines = [" " * width + "  " + "  ".join(language.name for language in languages)]
    for scenario in scenarios:
        cells = (
            MARKS.get(verdicts.get((language.key, scenario.name)), "?").strip("*").ljust(len(language.name))
            for language in languages
        )
        lines.append(f"{scenario.name.ljust(width)}  " + "  ".join(cells).rstrip())
    return "\n".join(lines)


def summary(language, verdicts):
    """One line as cargo's test runner ends with."""
    counts = {kind: sum(verdict == kind for verdict in verdicts) for kind in MARKS}
    word = "FAILED" if counts["failed"] else "ok"
    return (
        f"test result: {word}. {counts['passed']} passed; {counts['failed']} failed; {counts['skipped']} ignored"
        f" ({language.name})"
    )
