"""The command line: `forearm COMMAND key=value …`. One command, one config, one function.

This module imports nothing heavy: `forearm --help` answers at once, and recording's spawned workers import it too.
"""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .console import Interrupts, enduring_output, terminable
from .errors import UserError
from .version import __version__

if TYPE_CHECKING:
    from omegaconf import DictConfig

PROG = "forearm"


@dataclass(frozen=True)
class Command:
    """A command's name, its function as `module:function` inside the package, and a line about it."""

    name: str
    function: str
    summary: str

    @property
    def config(self) -> str:
        return self.function.split(":")[0]

    def load(self) -> Any:
        module, function = self.function.split(":")
        return getattr(import_module(f"{__package__}.commands.{module}"), function)


COMMANDS = {
    command.name: command
    for command in (
        Command("quickstart", "quickstart:run", "record, train, bench and film, from nothing to a moving arm"),
        Command("record", "record:run", "record episodes of an arm into a folder"),
        Command("data check", "data:run", "say which file of a recording is damaged, and why"),
        Command("train", "train:run", "learn a latent world model from recorded episodes"),
        Command("demo", "demo:run", "run a planner in closed loop on held-out goals and film it"),
        Command("bench", "bench:run", "measure planners on one manifest of held-out goals"),
        Command("bench planners", "planners:run", "measure planners on problems whose optimum is known"),
        Command("doctor", "doctor:run", "tell what works on this machine, and how to mend what does not"),
    )
}


def usage() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {command.name:<{width}}  {command.summary}" for command in COMMANDS.values()]
    return "\n".join(
        [
            f"usage: {PROG} COMMAND [key=value ...]",
            "",
            "Plans robot-arm actions by imagination.",
            "",
            *lines,
            "",
            f"{PROG} COMMAND --help shows what can be set; {PROG} --version the version.",
        ]
    )


def command_help(command: Command) -> str:
    """The command's own YAML, which is its reference, and that of the groups it takes further settings from."""
    configs = files(f"{__package__}.configs")
    own = (configs / f"{command.config}.yaml").read_text(encoding="utf-8").splitlines()
    groups = [line.removeprefix("  - ") for line in own if line.startswith("  - ") and "_self_" not in line]
    # Groups with a comment, which says where they are told of, take a line like a setting.
    brief = _settings([line for line in groups if "#" in line])
    chosen = dict(line.split(": ") for line in groups if "#" not in line)
    lines = [f"usage: {PROG} {command.name} [key=value ...]", "", own[0].lstrip("# "), "", *_settings(own), *brief]
    for group, option in chosen.items():
        if group == "planner":
            plans = (configs / "plans" / "default.yaml").read_text(encoding="utf-8").splitlines()
            lines += ["", "  each planner", *_settings(plans, "  planner.")]
        for name in _options(group):
            text = (configs / group / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
            if text[0] == "# @package _global_":
                lines += _settings(text)
            else:
                default = " (the default)" if name == option else ""
                lines += ["", f"  {group}={name}{default}", *_settings(text, f"  {group}.")]
    for condition, settings in presets().items():
        shown = {line.split("=")[0].strip() for line in lines if "=" in line}
        known = [f"{key}={value}" for key, value in settings.items() if {key, key.split(".")[0]} & shown]
        if known and {word.split("=")[0] for word in condition.split()} <= shown:
            lines += ["", f"  with {condition}, unless set otherwise: {' '.join(known)}"]
    return "\n".join(lines).replace('"${planner.name}"', chosen.get("planner", ""))


def _settings(yaml: list[str], prefix: str = "") -> list[str]:
    """Lines `key=value  # what it is` of a YAML's keys, nested ones too, as they would be typed: YAML's .inf is inf."""
    lines: list[str] = []
    owners: list[tuple[int, str]] = []  # the keys that a line is nested in, and how far each is indented
    for line in yaml:
        found = re.fullmatch(r"( *)(\w+):(?: +([^ #].*?))??(?: +(#.*))?", line)
        if not found:
            continue
        indent, key, value, comment = len(found[1]), found[2], found[3], found[4] or ""
        owners = [(deep, owner) for deep, owner in owners if deep < indent]
        dotted = ".".join([owner for _, owner in owners] + [key])
        if dotted in ("defaults", "name"):
            continue
        if value is None:
            owners.append((indent, key))
            shown = [f"{dotted}."] if comment else []
        elif pairs := re.fullmatch(r"{(.*)}", value):
            shown = [f"{dotted}.{pair.strip().replace(': ', '=')}" for pair in pairs[1].split(",")]
        else:
            plain = re.sub(r"^(-?)\.inf$", r"\1inf", value)
            shown = [f"{dotted}={plain}"]
        lines += [f"  {prefix}{setting:<22}  {comment}".rstrip() for setting in shown]
    return lines


def compose(config_name: str, overrides: Sequence[str]) -> DictConfig:
    """The command's config with the user's overrides, each checked against the defaults.

    Raises:
        UserError: for an unknown key or group option, or a value of another type than the default's.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_module
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    _check_form(overrides)
    with _own_hydra(), initialize_config_module(f"{__package__}.configs", version_base="1.3"):
        root = hydra_compose(config_name)
        typed = _typed(overrides, root)
        overrides = [f"{key}={value}" for key, value in typed.items()]
        begun = _begun(typed, root)
        before = [f"{key[:-5]}={name}" for key, name in begun.items() if key.endswith(".name") and key[:-5] in root]
        before = [override for override in before if override.split("=")[0] not in typed]
        overrides = [*before, *([] if begun else _preset(overrides, root)), *overrides]
        groups = [override for override in overrides if _chooses(override, root)]
        written = [override for override in groups if override.split("=", 1)[1] in _options(override.split("=", 1)[0])]
        defaults = hydra_compose(config_name, written)
    config = deepcopy(defaults)
    for override in groups:
        if override not in written:
            group, name = override.split("=", 1)
            _registered(group, name, config, defaults)
    if "settings" in root:
        for name in _registered_planners():
            for each in (config, defaults):
                OmegaConf.update(each, f"settings.{name}", _fields(name) | {"iterations": 12}, force_add=True)
    missing = object()
    for key, value in begun.items():
        if OmegaConf.select(defaults, key, default=missing) is not missing and not key.endswith("name"):
            OmegaConf.update(config, key, value)
    parser = OverridesParser.create()
    for override in overrides:
        if override in groups:
            continue
        key, text = override.split("=", 1)
        default = _default(override, defaults, config_name)
        free = key.startswith("env.") and default is None  # a parameter of a registered world, of any kind
        try:  # words and paths are taken as they are; Hydra's grammar reads the rest
            if default == []:
                value: Any = _paths(text)
            elif isinstance(default, str):
                value = text
            elif default is None and not free:
                value = None if text == "null" else _path(text)
            else:
                value = parser.parse_override(override).value()
            good = text != "null" or default is None
            OmegaConf.update(config, key, value, force_add=key.startswith("env."))
            good = good and (free or _fits(OmegaConf.select(config, key), default))
        except (HydraException, OmegaConfBaseException):
            good = False
        if not good:
            raise UserError(f"{override}: must be {_wanted(default)}{_one_each(override, default)}")
    return config


@contextmanager
def _own_hydra() -> Iterator[None]:
    """Lets Hydra be initialised in here, and leaves it as the program that called us had it."""
    from hydra.core.global_hydra import GlobalHydra

    before = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        yield
    finally:
        GlobalHydra.instance().hydra = before


def _check_form(overrides: Sequence[str]) -> None:
    """UserError for what is not key=value."""
    for override in overrides:
        if override in ("-m", "--multirun"):
            raise UserError(f"{override}: a command runs once; give each value a command of its own")
        key = override.split("=", 1)[0]
        if "=" not in override or not key.replace(".", "").replace("_", "").isalnum():
            raise UserError(f"'{override}' is not of the form key=value; {PROG} --help lists the commands")


def _typed(overrides: Sequence[str], root: DictConfig) -> dict[str, str]:
    """Values by key, as they were typed. Of a key that is given twice the last one counts, with a word about it.

    Raises:
        UserError: for a list that is given twice, for both will have been meant.
    """
    from omegaconf import ListConfig, OmegaConf

    typed: dict[str, str] = {}
    for override in overrides:
        key, value = override.split("=", 1)
        if (before := typed.pop(key, value)) != value:
            if isinstance(OmegaConf.select(root, key), ListConfig):
                raise UserError(
                    f"{key} is given twice, as {key}={before} and {key}={value}; give one list, {key}=[…,…]"
                )
            print(f"{PROG}: {key}={value} counts, not the {key}={before} before it", file=sys.stderr)
        typed[key] = value
    return typed


def _begun(typed: Mapping[str, str], root: DictConfig) -> dict[str, Any]:
    """The settings, by dotted key, that the training which is to be resumed was begun with; empty for all else.

    Raises:
        UserError: where there is none, or another option of a group is asked for.
    """
    from omegaconf import OmegaConf

    if "resume" not in root or typed.get("resume", "").lower() != "true":
        return {}
    from .commands.common import flat
    from .commands.train import latest

    folder = Path(_path(typed["out"])) if typed.get("out", "null") != "null" else latest()
    path = folder / "config.yaml"
    if not path.is_file() and "data" not in typed:
        raise UserError(f"resume=true: there is no training in {folder}; give its folder as out=…")
    begun = flat(as_dict(OmegaConf.load(path))) if path.is_file() else {}
    for key, text in typed.items():
        name = begun.get(f"{key}.name", text)
        if name != text:
            raise UserError(f"{key}={text}: this training was begun with {key}={name}; keep it to resume")
    return begun | {"out": str(folder)}


def _registered(group: str, name: str, config: DictConfig, defaults: DictConfig) -> None:
    """Puts a world or a planner that a program registered, and no YAML knows, where a group's option goes: with the
    settings that all have, and those that it takes itself."""
    from omegaconf import OmegaConf

    if group == "env":
        from .envs.registry import parameters

        for each in (config, defaults):
            each.env.name = name
            if "planners" in each:  # which searches Forearm's own simulation
                planners: Any = OmegaConf.to_container(each.planners)
                each.planners = [planner for planner in planners if planner != "oracle"]
        for key, default in parameters(name).items():  # those that are not set stay the world's own
            OmegaConf.update(defaults, f"env.{key}", default, force_add=True)
    else:
        plans = OmegaConf.load(str(files(f"{__package__}.configs") / "plans" / "default.yaml"))
        settings = {**_fields(name), **as_dict(plans), "name": name}
        for each in (config, defaults):
            each.planner = settings


def _registered_planners() -> list[str]:
    """Planners that a program registered, and no YAML knows."""
    from .planner import PLANNERS

    return [name for name in PLANNERS if name not in _options("planner")]


def _fields(planner: str) -> dict[str, Any]:
    """A registered planner's own settings: the fields of its dataclass that have a plain default."""
    from dataclasses import fields

    from .planner import PLANNERS

    plain = (bool, int, float, str, type(None))
    return {field.name: field.default for field in fields(PLANNERS[planner]) if isinstance(field.default, plain)}


def presets() -> dict[str, dict[str, Any]]:
    """`configs/presets.yaml`: what a choice such as env=reach, or several at once, sets."""
    import yaml

    return yaml.safe_load((files(f"{__package__}.configs") / "presets.yaml").read_text(encoding="utf-8"))


def _preset(overrides: Sequence[str], root: DictConfig) -> Iterator[str]:
    """What presets add to a user's overrides: nothing that they set, or that the command has not."""
    from omegaconf import OmegaConf

    chosen = dict(override.split("=", 1) for override in overrides)
    now = {**_recorded(chosen["data"]), **chosen} if "data" in chosen and "obs" in root else dict(chosen)
    # `now` grows: a preset may choose what another one is for.
    for condition, settings in presets().items():
        if not all(_holds(word, now, root) for word in condition.split()):
            continue
        for name, setting in settings.items():
            if not {name, name.split(".")[0]} & set(chosen) and OmegaConf.select(root, name) is not None:
                now[name] = str(setting)
                yield f"{name}={setting}"


def _holds(word: str, now: Mapping[str, str], root: DictConfig) -> bool:
    """Whether KEY=VALUE is what is chosen `now`, or the default where nothing is."""
    from omegaconf import OmegaConf

    key, value = word.split("=")
    return now.get(key, OmegaConf.select(root, f"{key}.name" if _options(key) else key)) == value


def _recorded(data: str) -> dict[str, str]:
    """The environment of the recording that is to be learned from, if it can be read: whatever is wrong with it is said
    when it is opened."""
    from .episodes import DataError, Recordings

    try:
        envs = Recordings.open([Path(folder) for folder in _paths(data)]).envs
    except (DataError, OSError):
        return {}
    return {"env": envs[0]} if len(envs) == 1 else {}


def _options(group: str) -> list[str]:
    folder = files(f"{__package__}.configs") / group
    if not folder.is_dir():
        return []
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def _chooses(override: str, root: DictConfig) -> bool:
    """Whether an override chooses an option of a group, such as planner=mppi."""
    key, value = override.split("=", 1)
    options = _options(key) if key in root else []
    if options and value not in options and key == "env":
        from .envs import world_names

        options = sorted({*options, *world_names()})
    if options and value not in options and key == "planner":
        options = sorted({*options, *_registered_planners()})
    if options and value not in options:
        raise UserError(f"{key}={value} is unknown; choose one of: {', '.join(options)}{_one_each(override)}")
    return bool(options)


def _default(override: str, defaults: DictConfig, config_name: str) -> Any:
    """The default of the key that is set. UserError if there is no such key."""
    from omegaconf import DictConfig, OmegaConf

    key, value = override.split("=", 1)
    parent, _, leaf = key.rpartition(".")
    node = OmegaConf.select(defaults, parent) if parent else defaults
    known = [str(name) for name in node if name != "name"] if isinstance(node, DictConfig) else []
    if leaf in known and not isinstance(node[leaf], DictConfig):
        return node[leaf]
    owner = parent if parent and known else config_name
    known = known or [str(name) for name in defaults]
    near = get_close_matches(leaf, known, 1)
    hint = f"; did you mean {near[0]}?" if near else "."
    raise UserError(f"{key}={value}: {owner} has no key '{key}'{hint} It has: {', '.join(known)}")


def _path(text: str) -> str:
    """A path as it is meant: without the quotes around it, and with a home for its ~."""
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "'\""
    return os.path.expanduser(text[1:-1] if quoted else text)


def _paths(text: str) -> list[str]:
    """One path, or [A, B]: blanks around them and quotes go."""
    if text[:1] + text[-1:] != "[]":
        return [_path(text)]
    words = re.findall(r"""\s*("[^"]*"|'[^']*'|[^,]*?)\s*(?:,|$)""", text[1:-1])
    return [_path(word) for word in words[:-1]] if text[1:-1].strip() else []  # the last one is the end of the text


def _one_each(override: str, default: Any = None) -> str:
    """What to do instead, where several values of a setting are given as for a sweep."""
    from omegaconf import ListConfig

    key, text = override.split("=", 1)
    values = text.split(",")
    if len(values) < 2 or text[:1] in "[{" or isinstance(default, ListConfig):
        return ""
    return f"; a command runs once: for each of {' '.join(values)}, give {key}=… to a command of its own"


def _fits(value: Any, default: Any) -> bool:
    """Whether a value is of the kind of the default's."""
    from omegaconf import ListConfig

    if default is None:
        return value is None or (isinstance(value, str) and value != "")
    if isinstance(default, ListConfig):
        if not default:  # paths
            return isinstance(value, ListConfig) and all(value)
        return isinstance(value, ListConfig) and len(value) > 0 and all(_fits(item, default[0]) for item in value)
    if isinstance(default, float):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and (math.isfinite(value) or value == default)
    return type(value) is type(default)


def _wanted(default: Any) -> str:
    from omegaconf import ListConfig

    if default == []:
        return "a path, or several as [A,B]"
    if isinstance(default, ListConfig):
        return f"a list like [{','.join(map(str, default))}]"
    kinds = {bool: "true or false", int: "a whole number", float: "a number", str: "a word"}
    return kinds.get(type(default), "a path, or null")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and gives its exit code: 0, 2 for what the user can mend, 130 after Ctrl-C or SIGTERM."""
    interrupts = Interrupts()
    with enduring_output(), interrupts.watched(), terminable():
        return _main(list(sys.argv[1:] if arguments is None else arguments), interrupts)


def _main(arguments: list[str], interrupts: Interrupts) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if arguments[0] == "--version":
        print(f"{PROG} {__version__}")
        return 0
    name, rest = arguments[0], arguments[1:]
    if rest and f"{name} {rest[0]}" in COMMANDS:
        name, rest = f"{name} {rest[0]}", rest[1:]
    try:
        if name not in COMMANDS:
            near = get_close_matches(" ".join(arguments[:2]), COMMANDS, 1) or get_close_matches(name, COMMANDS, 1)
            hint = f"; did you mean '{near[0]}'?" if near else "."
            raise UserError(f"unknown command '{name}'{hint} Commands: {', '.join(COMMANDS)}")
        command = COMMANDS[name]
        if any(argument in ("-h", "--help") for argument in rest):
            print(command_help(command))
            return 0
        if name == "data check":  # paths read better than data=[…], and both work
            rest = _folders(rest)
        from .requirements import outdated_named

        with outdated_named():
            return command.load()(compose(command.config, rest)) or 0
    except KeyboardInterrupt as interrupt:
        return _stopped(str(interrupt))
    except UserError as error:
        print(f"{PROG}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except Exception:
        if not interrupts.came:
            raise
        return _stopped()


def _stopped(how: str = "") -> int:
    print(f"\n{PROG}: stopped; {how or 'to go on, run the same command again'}", file=sys.stderr)
    return 130


def _folders(words: Sequence[str]) -> list[str]:
    """`A B` as data=["A","B"]; words of the form key=value stay."""
    paths = [word for word in words if "=" not in word or Path(word).exists()]
    quoted = [f"'{path}'" if '"' in path else f'"{path}"' for path in paths]
    return [*([f"data=[{','.join(quoted)}]"] if paths else []), *(word for word in words if word not in paths)]


def as_dict(config: Any) -> dict[str, Any]:
    """A plain dict of a config node."""
    from omegaconf import OmegaConf

    value = OmegaConf.to_container(config, resolve=True)
    assert isinstance(value, Mapping)
    return {str(key): item for key, item in value.items()}


if __name__ == "__main__":
    sys.exit(main())
