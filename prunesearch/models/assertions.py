"""Checks in somebody's forward that raise or do nothing: what they test decides nothing else."""

from __future__ import annotations

import ast
import functools
from collections.abc import Mapping
from types import CodeType

from prunesearch.models.rounded import Span, nodes_of, position_of, span_of


def is_tested(code: CodeType, instruction: int) -> bool:
    """Whether an instruction is part of what an assertion tests, or of an `if` that does nothing but raise.

    Args:
        code: Of the function.
        instruction: Where in it, in bytes.
    """
    span = span_of(code, instruction)
    if span is None:
        return False
    checks = _checks(code.co_filename)
    return span in checks or any(_holds(test, span) for test in checks.values())


def _holds(outer: Span, inner: Span) -> bool:
    line, end_line, column, end_column = outer
    first, last, start, end = inner
    return (line, column) <= (first, start) and (last, end) <= (end_line, end_column)


@functools.lru_cache(maxsize=256)
def _checks(filename: str) -> Mapping[Span, Span]:
    """Where a file raises if something is not so, with where it tests that; a test that gives something a name is none.

    The jump after a test is said to be where the test is, or where the whole statement is.
    """
    return {
        position_of(node): position_of(node.test)
        for node in nodes_of(filename)
        if (isinstance(node, ast.Assert) or (isinstance(node, ast.If) and _only_raises(node)))
        and not any(isinstance(inner, ast.NamedExpr) for inner in ast.walk(node.test))
    }


def _only_raises(node: ast.If) -> bool:
    return not node.orelse and all(isinstance(line, ast.Raise) for line in node.body)
