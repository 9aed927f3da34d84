"""How shells ask what may come next: their scripts, and the answer with the cluster's names."""

from __future__ import annotations

from enum import Enum, StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
import typer.main

from kubectl_inferencemodel import completion, output, plain
from kubectl_inferencemodel.cluster import Cluster
from kubectl_inferencemodel.completion import Option, Shape
from kubectl_inferencemodel.errors import PluginError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from kubectl_inferencemodel.completion import Line


class Shell(StrEnum):
    """Those that there is a script for."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


SCRIPTS: Final = {
    Shell.BASH: r"""# bash completion of kubectl-inferencemodel and kubectl-tfm
_kubectl_inferencemodel() {
    local answer line cut=""
    # What bash cuts at an equals sign is one word: only what is behind it is replaced.
    if [[ ${COMP_WORDS[COMP_CWORD]} == "=" ]]; then
        cut="${COMP_WORDS[COMP_CWORD-1]}="
    elif (( COMP_CWORD > 1 )) && [[ ${COMP_WORDS[COMP_CWORD-1]} == "=" ]]; then
        cut="${COMP_WORDS[COMP_CWORD-2]}="
    fi
    COMPREPLY=()
    answer=$("${COMP_WORDS[0]}" __complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null) || return
    while IFS= read -r line; do
        case $line in
            :0) compopt -o default ;;
            :*) ;;
            *) line=${line%%$'\t'*}; COMPREPLY+=("${line#"$cut"}") ;;
        esac
    done <<< "$answer"
}
complete -F _kubectl_inferencemodel kubectl-inferencemodel kubectl-tfm
""",
    Shell.ZSH: r"""#compdef kubectl-inferencemodel kubectl-tfm
_kubectl_inferencemodel() {
    local answer line
    local -a found
    answer=$("${words[1]}" __complete "${(@)words[2,CURRENT]}" 2>/dev/null) || return
    for line in "${(@f)answer}"; do
        case $line in
            :0) _files; return ;;
            :*) ;;
            *) found+=("${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}") ;;
        esac
    done
    _describe "" found
}
compdef _kubectl_inferencemodel kubectl-inferencemodel kubectl-tfm
""",
    Shell.FISH: r"""# fish completion of kubectl-inferencemodel and kubectl-tfm
function __kubectl_inferencemodel
    set -l words (commandline -opc)
    set -l answer ($words[1] __complete $words[2..-1] (commandline -ct) 2>/dev/null)
    if contains -- :0 $answer
        __fish_complete_path (commandline -ct)
    end
    string match --invert --regex '^:' -- $answer
end
complete -c kubectl-inferencemodel -f -a '(__kubectl_inferencemodel)'
complete -c kubectl-tfm -f -a '(__kubectl_inferencemodel)'
""",
}


def script(
    shell: Annotated[Shell, typer.Argument(help="Which one.", show_default=False)],
) -> None:
    """Print a script by which a shell completes commands, options and the cluster's names."""
    output.write(SCRIPTS[shell])


def answer(words: Sequence[str], app: typer.Typer) -> str:
    """What may come next, as the scripts and kubectl read it."""
    try:
        return completion.written(*completion.complete(words, shapes(app), _Asked()))
    except PluginError:
        # Nobody reads a message in the middle of a word.
        return completion.written([], completion.Directive.WORDS)


def shapes(app: typer.Typer) -> dict[str, Shape]:
    """The commands as they are declared."""
    group: Any = typer.main.get_group(app)
    return {
        name: Shape(
            command.get_short_help_str(80),
            tuple(_option(p) for p in command.params if p.param_type_name == "argument"),
            tuple(_option(p) for p in command.params if p.param_type_name == "option"),
        )
        for name, command in group.commands.items()
        if not command.hidden
    }


def _option(parameter: Any) -> Option:
    kind = parameter.type_descriptor.annotation
    choices = tuple(str(each) for each in kind) if _is(kind, Enum) else ()
    return Option(
        name=parameter.name,
        words=tuple(parameter.opts),
        help=parameter.help or "",
        takes_value=not getattr(parameter, "is_flag", False),
        is_repeated=parameter.multiple,
        is_file=_is(kind, Path),
        choices=choices,
    )


def _is(kind: object, of: type) -> bool:
    return isinstance(kind, type) and issubclass(kind, of)


class _Asked:
    """The cluster that a line is about."""

    def models(self, line: Line) -> Iterable[str]:
        return self._cluster(line).names()

    def namespaces(self, line: Line) -> Iterable[str]:
        return self._cluster(line).namespaces()

    def contexts(self, line: Line) -> Iterable[str]:
        return plain.contexts(_file(line))

    def versions(self, line: Line) -> Iterable[tuple[str, str]]:
        if not line.arguments:
            return []
        model = self._cluster(line).model(line.arguments[0])
        of, rollout = model.status.model, model.status.model.rollout
        found = {known.version: known.state for known in of.versions}
        found |= {failed.version: f"Quarantined: {failed.reason}" for failed in of.quarantined}
        if rollout is not None and rollout.version not in found:
            found[rollout.version] = rollout.phase
        taken = set(line.arguments[1:])
        newest = sorted(found.items(), reverse=True)
        return [(str(version), state) for version, state in newest if str(version) not in taken]

    def _cluster(self, line: Line) -> Cluster:
        values = line.values
        found = Cluster(_file(line), values.get("context"), values.get("namespace"))
        return found.impatient()


def _file(line: Line) -> Path | None:
    file = line.values.get("kubeconfig")
    return Path(file).expanduser() if file else None
