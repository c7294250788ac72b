"""Plants the mistakes of faults.yaml in the clients, one after the other, and sees that the suite finds each.

Languages may be named; without, all that have mistakes.

A file is as before when its turn is over; one with changes that are not committed is left alone.
"""

import subprocess
import sys
from pathlib import Path

import yaml

TOP = Path(__file__).resolve().parents[3]
RUN = TOP / "tests/conformance/run"


def main():
    faults = yaml.safe_load((RUN.parent / "faults.yaml").read_text())
    chosen = [fault for fault in faults if not sys.argv[1:] or fault["language"] in sys.argv[1:]]
    sound = all([is_found(fault) for fault in chosen])
    return 0 if sound and chosen else 1


def is_found(fault):
    file = TOP / fault["file"]
    before = file.read_text()
    if before.count(fault["replace"]) != 1:
        return say("CANNOT BE PLANTED", fault)
    if subprocess.run(["git", "diff", "--quiet", "HEAD", "--", file], cwd=TOP).returncode:
        return say("NOT PLANTED, the file has changes", fault)
    if not passes(fault):
        return say("FAILS WITHOUT THE FAULT", fault)
    file.write_text(before.replace(fault["replace"], fault["with"]))
    try:
        return say("MISSED", fault) if passes(fault) else say("found", fault, True)
    finally:
        file.write_text(before)


def passes(fault):
    """Whether its scenario passes; a fault that does not compile is none."""
    command = [RUN, "--language", fault["language"], "--scenario", fault["scenario"], "--patience", "4"]
    done = subprocess.run(command, cwd=TOP, capture_output=True, text=True)
    if f"{fault['language']}/{fault['scenario']}" not in done.stdout:
        raise SystemExit(f"{fault}:\n{done.stdout}{done.stderr}")
    return done.returncode == 0


def say(verdict, fault, good=False):
    print(f"{verdict:8} {fault['language']}: {fault['fault']} ({fault['scenario']})", flush=True)
    return good


sys.exit(main())
