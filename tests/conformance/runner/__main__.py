"""`tests/conformance/run`."""

import argparse
import concurrent.futures
import os
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

from . import report
from .play import Failure, Play, Unsupported
from .scenario import languages, scenarios
from .world import World

OUT = Path("target/conformance")
# Scenarios mostly wait: for backoffs, restarts, and for nothing to happen.
DEFAULT_JOBS = 4


def main():
    options = parse()
    chosen_scenarios = scenarios(options.scenario)
    chosen_languages = languages(options.language, OUT.resolve())
    present, verdicts = prepare_all(chosen_languages, chosen_scenarios, options)
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        runs = {
            pool.submit(play, language, scenario, options): (language.key, scenario.name)
            for language in present
            for scenario in chosen_scenarios
        }
        for run in concurrent.futures.as_completed(runs):
            verdicts[runs[run]] = run.result()
    if options.unit:
        verdicts |= {(language.key, "unit"): unit(language) for language in present if language.unit}
    return conclude(chosen_languages, chosen_scenarios, verdicts, options)


def parse():
    parser = argparse.ArgumentParser(prog="tests/conformance/run")
    parser.add_argument("--language", action="append", default=[], help="only these; a pattern of languages/*.yaml")
    parser.add_argument("--scenario", action="append", default=[], help="only these; a pattern of scenarios/*.yaml")
    parser.add_argument("--table", help="the file whose table of results is written anew")
    parser.add_argument("--jobs", type=int, default=DEFAULT_JOBS, help="scenarios at a time")
    parser.add_argument("--repeat", type=int, default=1, help="plays each scenario so many times")
    parser.add_argument("--patience", type=float, default=1, help="waits so many times longer: for a busy machine")
    parser.add_argument("--allow-missing", action="store_true", help="a language without its toolchain is skipped")
    parser.add_argument("--unit", action="store_true", help="runs the languages' own tests, too")
    parser.add_argument("--verbose", action="store_true", help="shows each step and its answer")
    return parser.parse_args()


def prepare_all(chosen, chosen_scenarios, options):
    """Builds the drivers; the languages that can be played, and the verdicts of the others."""
    present, verdicts = [], {}
    for language in chosen:
        problem = prepare(language)
        if problem is None:
            present.append(language)
            continue
        missing = bool(language.missing())
        verdict = "skipped" if missing and options.allow_missing else "failed"
        say(f"== {language.name}: {verdict.upper()}, {problem}")
        verdicts |= {(language.key, scenario.name): verdict for scenario in chosen_scenarios}
    return present, verdicts


def prepare(language):
    """What went wrong, or None."""
    if missing := language.missing():
        return f"not on the PATH: {', '.join(missing)}"
    started = time.monotonic()
    problem = first_problem(language, language.prepare)
    say(f"== {language.name}: prepared in {time.monotonic() - started:.1f} s")
    return problem


def unit(language):
    """The verdict of the language's own tests."""
    started = time.monotonic()
    problem = first_problem(language, language.unit)
    verdict = "failed" if problem else "passed"
    say(f"{verdict:7} {language.key}/unit ({time.monotonic() - started:.1f} s)")
    if problem:
        say(problem)
    return verdict


def first_problem(language, commands):
    """The first command that failed, and what it said; None when all succeeded."""
    folder = OUT / language.key
    folder.mkdir(parents=True, exist_ok=True)
    for command in commands:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "CONFORMANCE_OUT": str(folder.resolve())},
        )
        if done.returncode:
            return f"{' '.join(command)}:\n{done.stdout.decode(errors='replace')}"
    return None


def play(language, scenario, options):
    for _ in range(options.repeat):
        verdict = play_once(language, scenario, options)
        if verdict != "passed":
            return verdict
    return "passed"


def play_once(language, scenario, options):
    """The verdict; says at once what went wrong."""
    lines = []
    log = say if options.verbose else lines.append
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="ackwell-conformance-") as folder:
        folder = Path(folder)
        try:
            with World(scenario, language.run, folder) as world:
                Play(scenario, world, log, options.patience).run()
            verdict = "passed"
        except Unsupported as error:
            verdict = "skipped"
            lines = [f"  the library does not have {error}"]
        except Failure as error:
            verdict = "failed"
            lines += ["", str(error), *logs(folder)]
        except Exception:
            verdict = "failed"
            lines += ["", traceback.format_exc(), *logs(folder)]
    say(f"{verdict:7} {language.key}/{scenario.name} ({time.monotonic() - started:.1f} s)")
    if (verdict != "passed" and not options.verbose) or verdict == "failed":
        say("\n".join(lines))
    return verdict


def logs(folder):
    """The last of what each process printed."""
    for log in sorted(folder.glob("*.log")):
        yield f"--- {log.stem}"
        yield "\n".join(log.read_text(errors="replace").splitlines()[-40:])


def conclude(chosen_languages, chosen_scenarios, verdicts, options):
    say("\n" + report.plain_table(chosen_scenarios, chosen_languages, verdicts))
    for language in chosen_languages:
        say(report.summary(language, [verdict for (key, _), verdict in verdicts.items() if key == language.key]))
    if options.table:
        report.write_table(options.table, report.table(chosen_scenarios, chosen_languages, verdicts))
    return 1 if "failed" in verdicts.values() or not verdicts else 0


def say(line):
    print(line, flush=True)


sys.exit(main())
