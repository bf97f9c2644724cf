"""What a step costs: matrix products counted in its trace, collectives in its compiled text.

XLA's own analysis counts a loop's body once; both functions here count every iteration.
"""

import math
import re
from typing import NamedTuple

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")

_COMPUTATION = re.compile(r"(ENTRY )?(%[\w.-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"\s+(?:ROOT )?(%[\w.-]+) = (\(.*?\)|\S+) ([a-z][\w-]*)\((.*)")
_NAME = re.compile(r"%[\w.-]+")
_ARRAY = re.compile(r"\b([a-z]+)(\d*)\w*\[([\d,]*)\]")
_CALLED = re.compile(r"\b(?:calls|to_apply|branch_computations|body)=\{?(%[\w.-]+(?:, %[\w.-]+)*)")
_CONDITION = re.compile(r"\bcondition=(%[\w.-]+)")


class _Instruction(NamedTuple):
    name: str
    shape: str
    operation: str
    rest: str  # operands, a bracket, attributes


def matmul_flops(jaxpr: Jaxpr) -> int:
    """FLOPs of the matrix products of a trace, two for each multiplication and addition.

    A scan counts as often as it iterates, any other loop and each branch of a condition once.
    """
    total = 0
    for equation in jaxpr.eqns:
        params = equation.params
        if equation.primitive.name == "dot_general":
            contracted = params["dimension_numbers"][0][0]
            left = equation.invars[0].aval.shape
            terms = math.prod(left[axis] for axis in contracted)
            total += 2 * math.prod(equation.outvars[0].aval.shape) * terms
        times = params["length"] if equation.primitive.name == "scan" else 1
        for inner in jax.tree.leaves(tuple(params.values()), is_leaf=_is_jaxpr):
            if _is_jaxpr(inner):
                total += times * matmul_flops(getattr(inner, "jaxpr", inner))
    return total


def _is_jaxpr(value: object) -> bool:
    return isinstance(value, (Jaxpr, ClosedJaxpr))


def collective_bytes(text: str) -> dict[str, int]:
    """Bytes that enter each kind of collective on one device when a compiled module runs once.

    The size of a collective is that of its full array: reduced, gathered or before scattering.
    Loops count by the limit in their condition, from zero, as JAX writes them.

    Args:
      text: HLO of the module, from `Compiled.as_text()`.
    """
    entry, computations = _parse(text)
    found = dict.fromkeys(KINDS, 0)

    def walk(computation: str, times: int) -> None:
        sizes = {}
        for one in computations[computation]:
            sizes[one.name] = _bytes(one.shape)
            kind = one.operation.removesuffix("-start")
            if kind in KINDS:
                operands = sum(sizes[name] for name in _NAME.findall(one.rest.split(")")[0]))
                # what starts asynchronously returns its operands beside its results
                results = sizes[one.name] - (operands if kind != one.operation else 0)
                # a TPU scatters a sum by a fused all-reduce of which each device keeps its part
                scatters = computation.startswith("%all-reduce-scatter")
                found["reduce-scatter" if scatters else kind] += times * max(operands, results)
            loop = _CONDITION.search(one.rest)
            inner = times * (_limit(computations[loop[1]]) if loop else 1)
            for called in _CALLED.findall(one.rest):
                for name in _NAME.findall(called):
                    walk(name, inner)

    walk(entry, 1)
    return {kind: size for kind, size in found.items() if size}


def _parse(text: str) -> tuple[str, dict[str, list[_Instruction]]]:
    """The entry's name, and the instructions of each computation."""
    entry, computations, current = "", {}, []
    for line in text.splitlines():
        if head := _COMPUTATION.match(line):
            current = computations[head[2]] = []
            entry = head[2] if head[1] else entry
        elif instruction := _INSTRUCTION.match(line):
            current.append(_Instruction(*instruction.groups()))
    return entry, computations


def _limit(condition: list[_Instruction]) -> int:
    """How often a loop runs that counts from zero to the constant in its condition."""
    constants = [
        int(one.rest.split(")")[0])
        for one in condition
        if one.operation == "constant" and one.shape.startswith("s32[]")
    ]
    return constants[0] if len(constants) == 1 else 1


def _bytes(shape: str) -> int:
    """Bytes of an HLO shape, or of all arrays of a tuple."""
    total = 0
    for kind, bits, dims in _ARRAY.findall(shape):
        size = 8 if kind == "pred" else int(bits or 0)
        total += math.prod(int(dim) for dim in dims.split(",") if dim) * size // 8
    return total
