"""What every command shares: `--json`, one line or one object for an error, the exit code, never a traceback.

`program` makes the group that is an entry point and answers wrong usage; `reporting` stands next to each command's
function and answers what it raises. Commands return nothing (0) or an ExitCode. Results go to stdout, words to
stderr: CONTRACT, What people rely on.
"""

from __future__ import annotations

import functools
import importlib
import json
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, ParamSpec, TypeVar

import click

from lockbox_node.errors import ConfigError, ExitCode, KeyStoreError, LockboxError, RequestRefused, UsageError
from protocol.errors import ErrorCode, ProtocolError

F = TypeVar("F", bound=Callable[..., Any])
P = ParamSpec("P")
T = TypeVar("T")


class Defect(LockboxError):
    """A mistake of ours: the only thing that ends as INTERNAL without a peer having said so."""


_LOCAL_CODES: dict[type[LockboxError], str] = {
    UsageError: "USAGE",
    ConfigError: "CONFIG",
    KeyStoreError: "KEYSTORE",
    Defect: "INTERNAL",
    RequestRefused: "INTERNAL",
    LockboxError: "FAILED",  # of this machine: a full disk, a file that changed, Ctrl-C
}


class Program(click.Group):
    """A group that is a whole program: wrong usage and Ctrl-C end as the contract says.

    A command whose module takes long to load is named with `add_later` and imported when it is asked for.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401  # whatever click's group takes
        super().__init__(*args, **kwargs)
        self._later: dict[str, tuple[str, str]] = {}  # command -> module, name of the command in it

    def add_later(self, name: str, module: str, attribute: str, summary: str) -> None:
        """The command `name` is `attribute` of `module`, which is not imported for the help: that shows `summary`."""
        self.add_command(click.Command(name, short_help=summary))
        self._later[name] = (module, attribute)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that `args` begin with, imported now if need be, and the other arguments."""
        name, command, others = super().resolve_command(ctx, args)
        if name in self._later:
            module, attribute = self._later[name]
            command = getattr(importlib.import_module(module), attribute)
        return name, command, others

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: object,
    ) -> NoReturn:
        """Run the command that `args` (default: the command line) name, and exit the process."""
        arguments = list(sys.argv[1:] if args is None else args)
        name = prog_name or self.name or "lockbox"
        try:
            result = super().main(arguments, name, complete_var, standalone_mode=False, **extra)
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.format_message(), err=True)
            sys.exit(ExitCode.USAGE)
        except click.ClickException as error:
            context = getattr(error, "ctx", None)
            usage = UsageError(
                error.format_message().rstrip("."), f"see: {name if context is None else context.command_path} --help"
            )
            sys.exit(report(name, usage, as_json="--json" in arguments))
        except (click.Abort, KeyboardInterrupt):
            sys.exit(report(name, LockboxError("interrupted", "run it again"), as_json="--json" in arguments))
        sys.exit(result if isinstance(result, int) else ExitCode.DONE)


def program(name: str) -> Callable[[Callable[..., Any]], Program]:
    """Make the decorated function the group of the program `name`, with `--version`."""

    def decorate(function: Callable[..., Any]) -> Program:
        group = click.group(name=name, cls=Program, context_settings={"help_option_names": ["-h", "--help"]})(function)
        option = click.Option(
            ["--version"], is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version."
        )
        group.params.append(option)
        return group

    return decorate


def _version(context: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if not wanted or context.resilient_parsing:
        return
    import importlib.metadata  # as slow as all the rest of this module

    try:
        version = importlib.metadata.version("lockbox-node")
    except importlib.metadata.PackageNotFoundError:  # run from a checkout
        version = "not installed"
    click.echo(f"{context.find_root().info_name} {version}")
    context.exit()


def reporting(command: Callable[P, T]) -> Callable[P, T]:
    """Print what `command` raises and end with its exit code. Knows `--json` by the parameter `as_json`."""

    @functools.wraps(command)
    def reported(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return command(*args, **kwargs)
        except (click.ClickException, click.Abort, click.exceptions.Exit):
            raise
        except BrokenPipeError:  # whoever read our output has left, for example `head`
            sys.stderr.close()
            raise click.exceptions.Exit(ExitCode.FAILED) from None
        except Exception as error:
            name = click.get_current_context().find_root().info_name or "lockbox"
            code = report(name, answerable(error), as_json=bool(kwargs.get("as_json")))
        raise click.exceptions.Exit(code)

    return reported


def answerable(error: BaseException) -> LockboxError:
    """The LockboxError behind `error`, looked for in groups too; a defect of ours becomes INTERNAL with its place.

    The text of an unknown error is not passed on: it may hold what must not be printed.
    """
    for leaf in _leaves(error):
        if isinstance(leaf, LockboxError):
            return leaf
    leaf = next(iter(_leaves(error)))
    if isinstance(leaf, ProtocolError):
        return LockboxError(str(leaf), "check the files and the peer", getattr(leaf, "code", ErrorCode.INTERNAL))
    frames = traceback.extract_tb(leaf.__traceback__)
    place = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "an unknown place"
    return Defect(f"{type(leaf).__name__} at {place}", "this is a defect; please report it with this line")


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error]


def report(name: str, error: LockboxError, *, as_json: bool) -> ExitCode:
    """Print one line on stderr, or with --json one object on stdout. Returns the code to exit with."""
    if as_json:
        click.echo(json.dumps({"error": error_fields(error)}))
    else:
        line = f"{name}: {code_of(error)}: {error.message}" + (f"; {error.hint}" if error.hint else "")
        click.echo(" ".join(line.split()), err=True)
    return error.exit_code


def error_fields(error: LockboxError) -> dict[str, object]:
    """What `--json` shows of an error."""
    return {
        "code": code_of(error),
        "message": error.message,
        "hint": error.hint,
        "retryable": error.retryable,
        "retry_after_s": error.retry_after_s,
    }


def code_of(error: LockboxError) -> str:
    """The code that the error line shows: the wire's, or for local troubles USAGE, CONFIG, KEYSTORE, FAILED."""
    if error.code is not ErrorCode.INTERNAL:
        return error.code.value
    return next((code for kind, code in _LOCAL_CODES.items() if isinstance(error, kind)), error.code.value)


def emit(as_json: bool, payload: Mapping[str, object], text: str) -> None:
    """The result of a command on stdout: `payload` as one JSON object, or `text`."""
    click.echo(json.dumps(payload) if as_json else text)


def counted(count: int, thing: str) -> str:
    """ "1 part", "1,200 parts"."""
    return f"{count:,} {thing}" + ("" if count == 1 else "s")


def json_option(command: F) -> F:
    """`--json` as the parameter `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of words.")(command)
