"""Scenarios and languages as their files say."""

import dataclasses
import fnmatch
import shutil
from pathlib import Path

import yaml

HERE = Path(__file__).resolve().parent.parent


@dataclasses.dataclass(frozen=True)
class Scenario:
    """One promise, and the steps that show it."""

    name: str
    promise: str
    steps: list
    queue: dict
    shards: int
    # What applications connect to: the sidecar through a network, its UNIX socket, or a broker through a network.
    through: str
    # Of a volume of its own that the brokers share; 0: they have none.
    volume_mib: int
    # Whether brokers and sidecar tell a collector what they do.
    traces: bool


@dataclasses.dataclass(frozen=True)
class Language:
    """How a language's driver is built and run."""

    key: str
    name: str
    needs: list
    prepare: list
    unit: list
    run: list

    def missing(self):
        """Programs that are not on the PATH."""
        return [program for program in self.needs if shutil.which(program) is None]


def scenarios(patterns):
    """All that match one of the patterns; all, without a pattern."""
    files = sorted((HERE / "scenarios").glob("*.yaml"))
    return [load_scenario(file) for file in files if matches_any(file.stem, patterns)]


def languages(patterns, out):
    """The same of languages; `{out}` in commands is a folder in `out`."""
    files = sorted((HERE / "languages").glob("*.yaml"))
    return [load_language(file, out) for file in files if matches_any(file.stem, patterns)]


def matches_any(name, patterns):
    return not patterns or any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


def load_scenario(file):
    source = file.read_text()
    if not source.startswith("# Promise: "):
        raise ValueError(f"{file.name} does not begin with its promise")
    lines = source.split("\n")
    comment = [line.removeprefix("# ") for line in lines[: next(i for i, line in enumerate(lines) if not line.startswith("#"))]]
    known = {"steps", "queue", "shards", "through", "volume_mib", "traces"}
    content = yaml.safe_load(source)
    if unknown := set(content) - known:
        raise ValueError(f"{file.name}: unknown fields {unknown}")
    promise = " ".join(comment).removeprefix("Promise: ")
    through = content.get("through", "sidecar")
    if through not in ("sidecar", "socket", "broker"):
        raise ValueError(f"{file.name}: through {through}")
    return Scenario(
        file.stem,
        promise,
        content["steps"],
        content.get("queue", {}),
        content.get("shards", 1),
        through,
        content.get("volume_mib", 0),
        content.get("traces", False),
    )


def load_language(file, out):
    content = yaml.safe_load(file.read_text())
    folder = str(Path(out) / file.stem)

    def command(words):
        return [word.replace("{out}", folder) for word in words]

    prepare = [command(words) for words in content.get("prepare", [])]
    unit = [command(words) for words in content.get("unit", [])]
    return Language(file.stem, content["name"], content["needs"], prepare, unit, command(content["run"]))
