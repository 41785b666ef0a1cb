"""Numbers that code makes plain by `int(...)` or `len(...)`: where it uses them, so that they can be followed.

These give a plain integer, which remembers nothing. What is done with it stands in the source: `k = int(c / g)` is
wherever its function says `k`. Where each of these uses is an argument of one of torch's operators, all are known.
"""

from __future__ import annotations

import ast
import functools
import linecache
from dataclasses import dataclass
from types import CodeType
from typing import TypeAlias

Span: TypeAlias = tuple[int, int, int, int]
"""First line, last line, first column, last column; lines from 1, columns in bytes from 0."""
Call: TypeAlias = "ast.Call | ast.Subscript"


@dataclass(frozen=True)
class Use:
    """Where a plain number is used.

    Attributes:
        span: Of the expression that stands for it.
        calls: Spans by which the call that takes it may be known.
    """

    span: Span
    calls: tuple[Span, ...]


def span_of(code: CodeType, instruction: int) -> Span | None:
    """Where an instruction stands in its file; None before Python 3.11, which does not say."""
    if not hasattr(code, "co_positions"):
        return None
    line, end_line, column, end_column = list(code.co_positions())[instruction // 2]
    if line is None or end_line is None or column is None or end_column is None:
        return None
    return line, end_line, column, end_column


def uses_of(code: CodeType, instruction: int) -> tuple[Use, ...] | None:
    """Every use of what a call of `int` or `len` gives.

    Args:
        code: Of the function that calls it.
        instruction: The call, in bytes.

    Returns:
        The uses; None if it cannot be shown that these are all: it is no such call, or its result goes elsewhere
        than into arguments of calls.
    """
    span, tree = span_of(code, instruction), _tree(code.co_filename)
    made = None if span is None or tree is None else tree.at(span)
    if tree is None or not isinstance(made, ast.Call) or not isinstance(made.func, ast.Name):
        return None
    if made.func.id not in ("int", "len"):
        return None
    parent = tree.parents.get(made)
    expressions: list[ast.expr] | None = [made]
    if isinstance(parent, ast.Assign):
        expressions = tree.loads(parent)
    found = [tree.use(expression) for expression in expressions or ()]
    return None if expressions is None or None in found else tuple(use for use in found if use is not None)


def call_at(code: CodeType, instruction: int) -> Call | None:
    """The call, or the index, that an instruction is of."""
    span, tree = span_of(code, instruction), _tree(code.co_filename)
    return None if span is None or tree is None else tree.at(span)


def is_rounding(code: CodeType, instruction: int) -> bool:
    """Whether an instruction is of a call that makes a whole number of another; not known before Python 3.11."""
    call = call_at(code, instruction)
    return isinstance(call, ast.Call) and _name_of(call) in ("int", "len", "floor", "ceil", "round", "trunc", "index")


def spans_of(call: ast.expr) -> tuple[Span, ...]:
    """Where a call is said to be: from its beginning, or, if it is of several lines, from the name of the method."""
    spans = [position_of(call)]
    if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute):
        first, last, _, end = position_of(call)
        line, column = call.func.end_lineno or first, call.func.end_col_offset or 0
        spans.append((line, last, column - len(call.func.attr.encode()), end))
    return tuple(spans)


def position_of(node: ast.expr | ast.stmt) -> Span:
    """Where an expression or a statement stands."""
    assert node.end_lineno is not None
    assert node.end_col_offset is not None
    return node.lineno, node.end_lineno, node.col_offset, node.end_col_offset


def _name_of(call: Call) -> str:
    if isinstance(call, ast.Subscript):
        return "getitem"
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


class _Tree:
    """The syntax tree of a file, with a way from each node to the one around it."""

    def __init__(self, text: str) -> None:
        self._root = ast.parse(text)
        self.parents = {child: node for node in ast.walk(self._root) for child in ast.iter_child_nodes(node)}
        self._calls = {
            span: node
            for node in ast.walk(self._root)
            if isinstance(node, (ast.Call, ast.Subscript))
            for span in spans_of(node)
        }

    def at(self, span: Span) -> Call | None:
        """The call at a place."""
        return self._calls.get(span)

    def loads(self, assignment: ast.Assign) -> list[ast.expr] | None:
        """Every use of the name that an assignment binds; None if it may be bound otherwise, or used elsewhere."""
        function = self._function(assignment)
        if function is None or len(assignment.targets) != 1 or not isinstance(assignment.targets[0], ast.Name):
            return None
        name = assignment.targets[0].id
        inside = list(ast.walk(function))
        named = [node for node in inside if isinstance(node, ast.Name) and node.id == name]
        loads = [node for node in named if isinstance(node.ctx, ast.Load)]
        is_elsewhere = (
            len(named) - len(loads) != 1
            or any(isinstance(node, (ast.Global, ast.Nonlocal)) for node in inside)
            or any(isinstance(node, ast.arg) and node.arg == name for node in inside)
            or any(self._function(node) is not function for node in loads)
        )
        return None if is_elsewhere else [*loads]

    def _function(self, node: ast.AST) -> ast.AST | None:
        kinds = (ast.FunctionDef, ast.Lambda, ast.AsyncFunctionDef, ast.ClassDef, ast.ListComp, ast.SetComp,
                 ast.DictComp, ast.GeneratorExp)  # fmt: skip
        parent = self.parents.get(node)
        while parent is not None and not isinstance(parent, kinds):
            parent = self.parents.get(parent)
        return parent

    def use(self, expression: ast.expr) -> Use | None:
        """An expression as an argument of a call, or as an item of a list or tuple that is one; None otherwise."""
        inner: ast.AST = expression
        parent = self.parents.get(inner)
        while isinstance(parent, (ast.Tuple, ast.List, ast.Slice, ast.keyword)):
            inner, parent = parent, self.parents.get(parent)
        if isinstance(parent, ast.Subscript):
            is_argument = parent.slice is inner
        else:
            is_argument = isinstance(parent, ast.Call) and parent.func is not inner
        if not is_argument:
            return None
        assert isinstance(parent, (ast.Call, ast.Subscript))
        return Use(position_of(expression), spans_of(parent)) if _name_of(parent) else None

    def name_at(self, spans: tuple[Span, ...]) -> str:
        """The name of what a call at one of these places calls."""
        found = next((self._calls[span] for span in spans if span in self._calls), None)
        return "" if found is None else _name_of(found)


def nodes_of(filename: str) -> tuple[ast.AST, ...]:
    """Everything in the syntax tree of a file; nothing if it cannot be read."""
    tree = _tree(filename)
    return () if tree is None else tuple(tree.parents)


def name_called(code: CodeType, use: Use) -> str:
    """The name of what takes a number."""
    tree = _tree(code.co_filename)
    return "" if tree is None else tree.name_at(use.calls)


@functools.lru_cache(maxsize=256)
def _tree(filename: str) -> _Tree | None:
    try:
        return _Tree("".join(linecache.getlines(filename)))
    except (SyntaxError, ValueError):
        return None
