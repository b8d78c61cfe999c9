"""Reads PTX, the text that a driver gets: instructions, registers, parameters, and where shared variables are.

Only what NVVM writes for our kernels (PTX ISA 9.0, chapters 4 to 6); anything else raises an error that quotes it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property


@dataclass(frozen=True)
class Instruction:
    """`@!%p1 add.s64 %rd3, %rd2, 8`: predicate "%p1", negated, name "add", kinds ("s64",), operands ("%rd3", "%rd2", "8")."""

    text: str
    name: str
    kinds: tuple[str, ...]
    operands: tuple[str, ...]
    predicate: str = ""
    negated: bool = False


@dataclass
class Kernel:
    """A kernel and what it declares.

    parameters: their names, in order. registers: prefix -> type. shared, local: variable -> its first
    byte in a block's or a thread's memory of that kind, of which there are shared_bytes and local_bytes. labels: label -> the index
    of its instruction.
    """

    name: str
    parameters: list[str]
    shared: dict[str, int]
    shared_bytes: int
    registers: dict[str, str] = field(default_factory=dict)
    local: dict[str, int] = field(default_factory=dict)
    local_bytes: int = 0
    code: list[Instruction] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)

    @cached_property
    def places(self) -> frozenset[int]:
        """The instructions that have labels."""
        return frozenset(self.labels.values())


_VARIABLE = re.compile(r"\.(shared|local) \.align (\d+) \.b8\s+(\w+)\[(\d+)\]")
_REGISTERS = re.compile(r"\.reg \.(\w+)\s+%(\w+?)(?:<\d+>)?")
_INSTRUCTION = re.compile(r"(?:@(!?)(%\w+)\s+)?([a-z][\w.:]*)\s*(.*)", re.S)
# a call's own scope, and hints for debuggers and for the compiler
_IGNORED = re.compile(r"\.(reg \.b32 temp_param_reg|param|pragma|loc|file)\b")


def read(text: str) -> Kernel:
    """The one kernel of a module. Raises ValueError for what this cannot read."""
    text = re.sub(r"//.*", "", text)
    entry = re.search(r"\.entry\s+(\w+)\s*\(([^)]*)\)[^{]*\{", text)
    if entry is None:
        raise ValueError("there is no kernel in this module")
    if re.search(r"^\s*(\.visible |\.weak )*\.func.*?\)\s*\{", text, re.M):
        raise ValueError("a function that is called, which this cannot read")
    parameters = re.findall(r"\.param [^,]*?(\w+)\s*(?:,|$)", entry[2])
    shared, shared_bytes = _layout(text, "shared")
    kernel = Kernel(entry[1], parameters, shared, shared_bytes)
    body = text[entry.end() : text.rindex("}")]
    kernel.local, kernel.local_bytes = _layout(body, "local")
    statements = re.sub(r"\{([^{};\n]*)\}", r"<\1>", body)  # the elements of vectors, in brackets that no scope has
    for statement in re.split(r"[;{}]", statements):
        *labels, statement = re.split(r"^\s*([$\w]+):", statement, flags=re.M)
        kernel.labels |= dict.fromkeys((label for label in labels if label.strip()), len(kernel.code))
        _read_statement(kernel, statement.strip())
    return kernel


def _layout(text: str, space: str) -> tuple[dict[str, int], int]:
    places, size = {}, 0
    for kind, alignment, name, count in _VARIABLE.findall(text):
        if kind == space:
            places[name] = -(-size // int(alignment)) * int(alignment)
            size = places[name] + int(count)
    return places, size


def _read_statement(kernel: Kernel, text: str) -> None:
    if not text or _IGNORED.match(text) or _VARIABLE.match(text):
        return
    if registers := _REGISTERS.fullmatch(text):
        kernel.registers[registers[2]] = registers[1]
    elif found := _INSTRUCTION.fullmatch(text):
        name, *kinds = found[3].split(".")
        operands = tuple(part.strip() for part in re.split(r",\s*(?![^<(\[]*[>)\]])", found[4])) if found[4] else ()
        kernel.code.append(Instruction(text, name, tuple(kinds), operands, found[2] or "", found[1] == "!"))
    else:
        raise ValueError(f"cannot read this PTX: {text!r}")
