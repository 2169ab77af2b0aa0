"""Completion files for bash, zsh and fish, from the commands. Names come from the daemon (cli/names.py)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bridged.cli.entry import COMPLETE_NAMES
from bridged.cli.explain import all_codes
from scripts.deb.command_tree import Command, Option, command_tree

_PATHS: Final = {
    "bash": "bash-completion/completions/bridged",
    "zsh": "zsh/vendor-completions/_bridged",
    "fish": "fish/vendor_completions.d/bridged.fish",
}
_KINDS: Final = {
    ("kick", "NAME"): "peers",
    ("ban", "NAME"): "peers",
    ("revoke", "NAME"): "peers",
    ("kick", "--tunnel"): "tunnels",
    ("stations add", "--peer"): "peers",
    ("explain", "CODE"): "codes",
    ("wrap-key refuse", "KEY"): "files",
    ("wrap-key allow", "KEY"): "files",
    ("tap show", "NAME"): "taps",
    ("tap delete", "NAME"): "taps",
}
_BY_OPTION: Final = {"--port": "interfaces", "--bridge": "bridges"}
_BY_VALUE: Final = {"FILE": "files", "DIR": "folders", "TUNNEL": "tunnels"}


def write(folder: Path) -> None:
    """Write all three below `folder` (usr/share)."""
    for shell, text in files().items():
        path = folder / _PATHS[shell]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def files() -> dict[str, str]:
    """Shell -> text of its completion file."""
    root = command_tree()
    return {
        "bash": "\n".join(_bash(root)) + "\n",
        "zsh": "\n".join(_zsh(root)) + "\n",
        "fish": "\n".join(_fish(root)) + "\n",
    }


def _kind(command: Command, thing: str, value: str = "") -> str:
    """What completes the value of an option or an argument; "" for nothing."""
    known = _KINDS.get((" ".join(command.words), thing))
    return known or _BY_OPTION.get(thing) or _BY_VALUE.get(value or thing, "")


def _valued(command: Command) -> list[Option]:
    return [option for option in command.options if option.value]


def _brief(text: str) -> str:
    """The first sentence, without its full stop."""
    return re.split(r"(?<=[a-z0-9)])\.(?:\s|$)|:\s", re.sub(r"\s+", " ", text.replace("`", "")))[0].rstrip(
        "."
    )


# --- bash -----------------------------------------------------------------------------------------

_BASH_HEAD: Final = f"""\
# bash completion for bridged(1)

_bridged_values() {{
    local names name
    case $1 in
    files) compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    folders) compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -d -- "$cur"); return ;;
    peers | tunnels) mapfile -t names < <(bridged {COMPLETE_NAMES} "$1" "$config" 2>/dev/null) ;;
    interfaces) mapfile -t names < <(cd /sys/class/net && printf '%s\\n' *) ;;
    bridges) mapfile -t names < <(cd /sys/class/net && printf '%s\\n' */bridge | cut -d/ -f1) ;;
    taps) mapfile -t names < <(cd /sys/class/net && printf '%s\\n' */tun_flags | cut -d/ -f1) ;;
    codes) names=({" ".join(sorted(all_codes()))}) ;;
    *) names=("$@") ;;
    esac
    COMPREPLY=()
    for name in "${{names[@]}}"; do
        [[ $name == "*" || $name != "$cur"* ]] || COMPREPLY+=("$(printf %q "$name")")
    done
}}

_bridged() {{
    local cur=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD - 1]}}
    local config="" command="" count=0 index word
    for ((index = 1; index < COMP_CWORD; index++)); do
        word=${{COMP_WORDS[index]}}
        case "$command $word" in"""


def _bash(root: Command) -> Iterator[str]:
    yield from _BASH_HEAD.splitlines()
    for command in root.walk():
        words = " ".join(command.words)
        if valued := [name for option in _valued(command) for name in option.names]:
            yield f"        {' | '.join(_quoted(f'{words} {name}') for name in valued)})"
            if "--config" in valued:
                value = "${COMP_WORDS[index + 1]/#\\~\\//$HOME/}"
                yield f"            case $word in -c | --config) config={value} ;; esac"
            yield "            ((index++)) ;;"
        for child in command.children:
            name = " ".join(child.words)
            yield f"        {_quoted(f'{words} {child.words[-1]}')}) command={_quoted(name)} count=0 ;;"
    yield from ('        *" -"*) ;;', "        *) ((count++)) ;;", "        esac", "    done")
    yield '    case "$command $previous" in'
    for command in root.walk():
        words = " ".join(command.words)
        for option in _valued(command):
            patterns = " | ".join(_quoted(f"{words} {name}") for name in option.names)
            kind = _kind(command, option.names[-1], option.value)
            yield f"    {patterns}) {f'_bridged_values {kind}' if kind else 'COMPREPLY=()'}; return ;;"
    yield "    esac"
    yield '    case "$command" in'
    for command in root.walk():
        yield f"    {_quoted(' '.join(command.words))})"
        options = " ".join(name for option in command.options for name in option.names)
        yield f"        if [[ $cur == -* ]]; then _bridged_values {options}; return; fi"
        if command.children:
            children = " ".join(child.words[-1] for child in command.children)
            yield f"        [[ $count -gt 0 ]] || _bridged_values {children}"
        for number, argument in enumerate(command.arguments):
            if kind := _kind(command, argument.value):
                yield f"        [[ $count -ne {number} ]] || _bridged_values {kind}"
        yield "        ;;"
    yield from ("    esac", "}", "", "complete -F _bridged bridged")


def _quoted(text: str) -> str:
    return f'"{text}"'


# --- zsh ------------------------------------------------------------------------------------------

_ZSH_HEAD: Final = f"""\
#compdef bridged

_bridged_names() {{
    local -a names
    local config=${{(Q)${{opt_args[--config]:-$opt_args[-c]}}}}
    names=(${{(f)"$(bridged {COMPLETE_NAMES} $1 "$config" 2>/dev/null)"}})
    compadd -a names
}}

_bridged_links() {{
    local -a names
    names=(/sys/class/net/*${{1:+/$1}}(N))
    compadd -- ${{${{names%/$1}}:t}}
}}
"""
# A space in front: _arguments adds nothing to the call.
_ZSH_KINDS: Final = {
    "files": "_files",
    "folders": "_files -/",
    "peers": " _bridged_names peers",
    "tunnels": " _bridged_names tunnels",
    "interfaces": " _bridged_links ''",
    "bridges": " _bridged_links bridge",
    "taps": " _bridged_links tun_flags",
    "codes": " _bridged_codes",
    "": " ",
}


def _zsh(root: Command) -> Iterator[str]:
    yield from _ZSH_HEAD.splitlines()
    yield from ("_bridged_codes() {", f"    compadd {' '.join(sorted(all_codes()))}", "}")
    yield ""
    for command in sorted(root.walk(), key=lambda command: -len(command.words)):
        yield f"{_zsh_function(command)}() {{"
        yield from _zsh_body(command)
        yield from ("}", "")
    yield '_bridged "$@"'


def _zsh_body(command: Command) -> Iterator[str]:
    specifications = []
    for option in command.options:
        names = "{" + ",".join(option.names) + "}" if len(option.names) > 1 else option.names[0]
        excluded = "" if option.repeats else f"({' '.join(option.names)})"
        repeats = "*" if option.repeats else ""
        value = (
            f":{option.value}:{_ZSH_KINDS[_kind(command, option.names[-1], option.value)]}"
            if option.value
            else ""
        )
        text = _zsh_text(f"[{_zsh_brief(option.help)}]{value}")
        specifications.append(f"'{excluded}{repeats}'{names}'{text}'")
    if command.children:
        yield "    local context state state_descr line"
        yield "    typeset -A opt_args"
        yield f"    _arguments -C {' '.join(specifications)} '1: :->command' '*:: :->rest'"
        yield "    case $state in"
        yield "    command)"
        described = " ".join(
            f"'{child.words[-1]}:{_zsh_text(_zsh_brief(child.help))}'" for child in command.children
        )
        yield f"        local -a commands=({described})"
        yield "        _describe command commands"
        yield "        ;;"
        yield "    rest)"
        yield "        case $words[1] in"
        for child in command.children:
            yield f"        {child.words[-1]}) {_zsh_function(child)} ;;"
        yield from ("        esac", "        ;;", "    esac")
        return
    for number, argument in enumerate(command.arguments, 1):
        optional = "" if argument.required else ":"
        action = _zsh_text(_ZSH_KINDS[_kind(command, argument.value)])
        specifications.append(f"'{number}:{optional}{argument.value}:{action}'")
    yield "    typeset -A opt_args"
    yield f"    _arguments {' '.join(specifications)}"


def _zsh_function(command: Command) -> str:
    return "_" + "_".join(("bridged", *command.words)).replace("-", "_")


def _zsh_brief(text: str) -> str:
    return re.sub(r"([\[\]:])", r"\\\1", _brief(text))


def _zsh_text(text: str) -> str:
    return text.replace("'", "'\\''")


# --- fish -----------------------------------------------------------------------------------------

_FISH_HEAD: Final = f"""\
# fish completion for bridged(1)

function __bridged_names
    set -l config
    set -l words (commandline -opc)
    for index in (seq 2 (count $words))
        if contains -- $words[$index] -c --config
            set config $words[(math $index + 1)]
        end
    end
    bridged {COMPLETE_NAMES} $argv[1] $config 2>/dev/null
end

function __bridged_links
    for path in /sys/class/net/*/
        if test -z "$argv[1]" -o -e "$path$argv[1]"
            basename $path
        end
    end
end

complete -c bridged -f"""
_FISH_KINDS: Final = {
    "peers": "(__bridged_names peers)",
    "tunnels": "(__bridged_names tunnels)",
    "interfaces": "(__bridged_links)",
    "bridges": "(__bridged_links bridge)",
    "taps": "(__bridged_links tun_flags)",
    "folders": "(__fish_complete_directories)",
}


def _fish(root: Command) -> Iterator[str]:
    yield from _FISH_HEAD.splitlines()
    for command in root.walk():
        condition = f"-n '{_fish_condition(command)}'"
        for child in command.children:
            yield f"complete -c bridged {condition} -a {child.words[-1]} -d {_fish_text(_brief(child.help))}"
        for option in command.options:
            yield f"complete -c bridged {condition} {_fish_option(command, option)}"
        for argument in command.arguments:
            kind = _kind(command, argument.value)
            if kind == "files":
                yield f"complete -c bridged {condition} -F"
            elif kind:
                values = _FISH_KINDS.get(kind) or " ".join(sorted(all_codes()))
                yield f"complete -c bridged {condition} -a {_fish_text(values)}"


def _fish_option(command: Command, option: Option) -> str:
    parts = [f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in option.names]
    if option.value:
        kind = _kind(command, option.names[-1], option.value)
        parts.append(
            "-r -F" if kind == "files" else f"-x -a {_fish_text(_FISH_KINDS[kind])}" if kind else "-x"
        )
    return f"{' '.join(parts)} -d {_fish_text(_brief(option.help))}"


def _fish_condition(command: Command) -> str:
    if not command.words:
        return "__fish_use_subcommand"
    seen = [f"__fish_seen_subcommand_from {word}" for word in command.words]
    if command.children:
        children = " ".join(child.words[-1] for child in command.children)
        seen.append(f"not __fish_seen_subcommand_from {children}")
    return "; and ".join(seen)


def _fish_text(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
