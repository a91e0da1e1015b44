"""Functions whose keyword arguments are the options of option groups."""

import contextlib
import functools
import inspect
import os
from collections.abc import Callable
from typing import Any, ParamSpec, Protocol, TypeVar

from simclr_tf.api.flagfile import read_options
from simclr_tf.errors import UserError
from simclr_tf.options import OptionSet, check_known, option_fields
from simclr_tf.utils.log import show_progress
from simclr_tf.utils.paths import expand_paths

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)

_FLAGFILE_HELP = (
    "File of options, one `--name=value` per line, which the call's own options override. A name "
    "such as `flags/quickstart.flags` also finds the recipes of the package."
)
_MISTAKE = "an option, the data or a directory is wrong; the message names the fix."


class OptionFunction(Protocol[P, R_co]):
    """A function made by `takes_options`."""

    __name__: str
    option_sets: tuple[OptionSet, ...]

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...


def takes_options(
    *option_sets: OptionSet,
) -> Callable[[Callable[P, R_co]], OptionFunction[P, R_co]]:
    """Returns a decorator for a function with `**options`, which are those of the option groups.

    The function gets the options that its caller sets, checked for unknown names. Its signature and
    its docstring list every option with its default, so that `help` and tab completion show them.
    An option that is also a parameter of the function is documented by the function. The docstring
    also says that mistakes raise UserError. `~` is expanded in all paths. The keyword argument
    `flagfile` reads options from a file.

    If the function has a parameter `labels`, its option `dataset` also takes images from Python.
    The function gets their name, under which they can be opened during the call. A `Run` that it
    returns, or takes as an argument in a later call, makes them available again.
    """

    def decorate(function: Callable[P, R_co]) -> OptionFunction[P, R_co]:
        own = inspect.signature(function)
        *parameters, _ = own.parameters.values()
        named = [parameter.name for parameter in parameters]
        flagfile = inspect.Parameter("flagfile", inspect.Parameter.KEYWORD_ONLY)
        keywords, documentation = [], ["Keyword Args:"]
        paths = set(named)
        for option_set in option_sets:
            for field in option_fields(option_set.group):
                if field.name in named:
                    continue
                default = option_set.defaults.get(field.name, field.default)
                keyword = inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY)
                keywords.append(keyword.replace(default=default, annotation=field.type))
                if field.metadata["is_path"]:
                    paths.add(field.name)
                help_text = option_set.help.get(field.name, field.metadata["help"])
                end = "" if default in ("", None) else f" Default: {default!r}."
                documentation.append(f"    {field.name}: {help_text}{end}")
        keywords.append(flagfile.replace(default="", annotation=str | os.PathLike[str]))
        documentation.append(f"    flagfile: {_FLAGFILE_HELP}")
        names = [*named, *(keyword.name for keyword in keywords)]
        options = {field.name: field for s in option_sets for field in option_fields(s.group)}

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R_co:
            show_progress()
            if path := kwargs.pop("flagfile", None):
                read = read_options(os.fspath(path), options)  # type: ignore[call-overload]
                for name in named[: len(args)]:  # set by position
                    read.pop(name, None)
                kwargs = {**read, **kwargs}  # type: ignore[assignment]
            check_known(kwargs, names, f"{function.__name__}()")
            sources = [s for a in (*args, *kwargs.values()) for s in getattr(a, "sources", ())]
            given = {
                name: expand_paths(value) if name in paths else value
                for name, value in kwargs.items()
                if value is not None
            }
            dataset = given.get("dataset")
            # An array; a text is the option of that name.
            is_option = "labels" in options and isinstance(given.get("labels"), str)
            labels = None if is_option else given.pop("labels", None)
            if "labels" in named and not isinstance(dataset, str | os.PathLike | None):
                from simclr_tf.data import from_python

                sources.append(from_python(dataset, labels))
                given["dataset"] = sources[-1].name
            elif labels is not None:
                raise UserError(
                    f"labels: expected images from Python next to them, got dataset={dataset!r}. "
                    "Fix: pass an array as dataset"
                )
            available: Any = contextlib.nullcontext()
            if sources:
                from simclr_tf import data

                available = data.available(sources)
            with available:
                result = function(*expand_paths(args), **given)  # type: ignore[arg-type]
            if sources and hasattr(result, "sources"):
                result.sources = tuple(sources)
            return result

        call.option_sets = option_sets  # type: ignore[attr-defined]
        call.__signature__ = own.replace(  # type: ignore[attr-defined]
            parameters=[*parameters, *keywords]
        )
        call.__doc__ = _complete_docstring(function.__doc__ or "", documentation)
        return call  # type: ignore[return-value]

    return decorate


def as_method(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a function of a run directory as a method of a class that is path-like."""

    @functools.wraps(function)
    def method(self: Any, **options: Any) -> Any:
        return function(self, **options)

    first, *others = inspect.signature(function).parameters.values()
    self_parameter = first.replace(
        name="self", default=inspect.Parameter.empty, annotation=inspect.Parameter.empty
    )
    method.__signature__ = inspect.signature(function).replace(  # type: ignore[attr-defined]
        parameters=[self_parameter, *others]
    )
    return method


def _complete_docstring(docstring: str, options: list[str]) -> str:
    before, returns, after = inspect.cleandoc(docstring).partition("\nReturns:")
    raises = "" if "\nRaises:" in after else "\n\nRaises:"
    raises += f"\n    UserError: {_MISTAKE}"
    return f"{before.rstrip()}\n\n" + "\n".join(options) + f"\n{returns}{after}{raises}\n"
