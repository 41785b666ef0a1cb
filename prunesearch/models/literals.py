"""Numbers of channels that stand in the code of a forward: `x.view(-1, 64)`, `F.pad(x, (0, 0, 0, 0, 8, 8))`, `x[:, :32]`.

A slimmed network needs other numbers there, and nothing else may change. The module whose method holds them gets a class
derived from its own, in which that method is the caller's own source with the other numbers. Names, parameters, flags,
random draws, context managers and attributes are what they were; the module pickles, copies and scripts as before.

A number is only changed where it can be shown to be the one: the instruction that called the operator has a position in
the source (Python 3.11 and newer; before, its line must leave no doubt), and there stands a constant of that value.
"""

from __future__ import annotations

import __future__

import ast
import copyreg
import functools
import hashlib
import inspect
import linecache
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import CodeType, FunctionType
from typing import Any, TypeAlias

from torch import fx, nn

from prunesearch.models.recording import Position, Site

Span: TypeAlias = tuple[int, int, int, int]
"""First line, last line, first column, last column; lines from 1, columns in bytes from 0."""


@dataclass(frozen=True)
class Place:
    """A number in the source of a method.

    Attributes:
        method: Name of the method in its class.
        line: Of the method's source, from 1.
        column: In the line, in bytes, without the indentation of the whole method.
        number: What stands there.
        source: Of the method, without its indentation.
    """

    method: str
    line: int
    column: int
    number: int
    source: str = field(repr=False, compare=False, default="")


Numbers: TypeAlias = Mapping[Place, int]
"""The new number at each place."""


# --- finding them -----------------------------------------------------------------------------------------------------


def place_of(module: nn.Module, site: Site, node: fx.Node, position: Position) -> Place | None:
    """Where the number at a position of a node's arguments stands in the code of a method of `module`.

    None if that cannot be shown: it is computed, or stands in something else than a method of the module's class.
    """
    found = _method_with(type(module), site.code)
    if found is None:
        return None
    name, function = found
    source = source_of(function)
    if source is None:
        return None
    call = _call(source, function, site, node)
    expression = None if call is None else _argument(call, node, position)
    number = None if expression is None else _folded(expression)
    if expression is None or number is None or number < 0:
        return None
    return Place(name, expression.lineno, expression.col_offset, number, source)


def places_in(kind: type, method: str) -> Iterator[Place]:
    """Every number in the source of a method that is a constant, or computed of constants alone."""
    function = _plain_function(kind, method)
    source = None if function is None else source_of(function)
    if source is None:
        return
    for expression in ast.walk(ast.parse(source)):
        number = _folded(expression) if isinstance(expression, ast.expr) else None
        if number is not None:
            yield Place(method, expression.lineno, expression.col_offset, number, source)  # type: ignore[attr-defined]


def _method_with(kind: type, code: CodeType) -> tuple[str, FunctionType] | None:
    """The method of a class that runs some code, itself or in a function of its own."""
    names = [code.co_name, *(name for parent in kind.__mro__ for name in vars(parent))]
    for name in dict.fromkeys(names):
        function = _plain_function(kind, name)
        if function is not None and _holds(function.__code__, code):
            return name, function
    return None


def _plain_function(kind: type, name: str) -> FunctionType | None:
    """A method as its class has it, beneath decorators of torch; None for anything else."""
    method = inspect.getattr_static(kind, name, None)
    if not isinstance(method, FunctionType):
        return None
    inner = inspect.unwrap(method)
    return inner if isinstance(inner, FunctionType) else None


def _holds(outer: CodeType, code: CodeType) -> bool:
    return outer is code or any(isinstance(item, CodeType) and _holds(item, code) for item in outer.co_consts)


def source_of(function: FunctionType) -> str | None:
    """The source of a function without its indentation; None if it cannot be read, or is not that of a `def`."""
    try:
        lines, _ = inspect.getsourcelines(function)
        source = textwrap.dedent("".join(lines))
        body = ast.parse(source).body
    except (OSError, TypeError, SyntaxError, IndentationError):
        return None
    if len(body) != 1 or not isinstance(body[0], ast.FunctionDef):
        return None
    return source if _can_be_decorated_again(body[0], function) else None


def _can_be_decorated_again(definition: ast.FunctionDef, function: FunctionType) -> bool:
    """Whether its decorators are torch's own, such as `torch.no_grad()`; others might do anything when called again."""
    for decorator in definition.decorator_list:
        root: Any = decorator
        while isinstance(root, (ast.Call, ast.Attribute)):
            root = root.func if isinstance(root, ast.Call) else root.value
        value = function.__globals__.get(root.id) if isinstance(root, ast.Name) else None
        owner = getattr(value, "__module__", None) or getattr(value, "__name__", "")
        if owner.partition(".")[0] != "torch":
            return False
    return True


def _call(source: str, function: FunctionType, site: Site, node: fx.Node) -> ast.Call | ast.Subscript | None:
    """The expression that called the operator."""
    indent = _indentation(function)
    first = function.__code__.co_firstlineno - 1
    calls = [item for item in ast.walk(ast.parse(source)) if isinstance(item, (ast.Call, ast.Subscript))]
    span = _span(site)
    if span is None:  # Python 3.10
        at = [call for call in calls if call.lineno + first <= site.line <= (call.end_lineno or 0) + first]
    else:
        at = [call for call in calls if _span_of(call, first, indent) == span]
    at = [call for call in at if _calls(call, node, function.__globals__)]
    return at[0] if len(at) == 1 else None


def _span(site: Site) -> Span | None:
    if not hasattr(site.code, "co_positions"):
        return None
    positions = list(site.code.co_positions())[site.instruction // 2]
    return None if None in positions else (positions[0], positions[1], positions[2], positions[3])  # type: ignore[return-value]


def _span_of(call: ast.expr, first: int, indent: int) -> Span:
    assert call.end_lineno is not None
    assert call.end_col_offset is not None
    return call.lineno + first, call.end_lineno + first, call.col_offset + indent, call.end_col_offset + indent


def _indentation(function: FunctionType) -> int:
    lines, _ = inspect.getsourcelines(function)
    return len(lines[0].encode()) - len(lines[0].lstrip().encode())


def _calls(call: ast.Call | ast.Subscript, node: fx.Node, names: Mapping[str, Any]) -> bool:
    """Whether an expression can be the call of a node's operator."""
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    if isinstance(call, ast.Subscript):
        return name in ("getitem", "set_item")
    if isinstance(call.func, ast.Attribute):
        return call.func.attr == name
    return isinstance(call.func, ast.Name) and (call.func.id == name or names.get(call.func.id) is node.target)


def _argument(call: ast.Call | ast.Subscript, node: fx.Node, position: Position) -> ast.expr | None:
    """The expression of one argument, or of an item of it."""
    first, *rest = position
    found: ast.expr | None
    if isinstance(call, ast.Subscript):
        found = call.slice if first == 1 else None
    elif isinstance(first, str):
        found = next((keyword.value for keyword in call.keywords if keyword.arg == first), None)
    else:
        is_method = node.op == "call_method"
        index = first - is_method
        before = call.args[: index + 1]
        if any(isinstance(argument, ast.Starred) for argument in before):
            return None
        found = before[index] if 0 <= index < len(before) else _by_keyword(call, node.target, first)
    for step in rest:
        if isinstance(found, ast.Slice):
            found = {"start": found.lower, "stop": found.upper}.get(str(step))
        elif isinstance(found, (ast.Tuple, ast.List)) and isinstance(step, int) and step < len(found.elts):
            found = None if any(isinstance(item, ast.Starred) for item in found.elts[: step + 1]) else found.elts[step]
        else:
            return None
    return found


def _by_keyword(call: ast.Call, target: Any, index: int) -> ast.expr | None:
    """An argument that torch was given by position where the caller wrote its name."""
    try:
        name = list(inspect.signature(target).parameters)[index]
    except (TypeError, ValueError, IndexError):
        return None
    return next((keyword.value for keyword in call.keywords if keyword.arg == name), None)


def _folded(expression: ast.expr) -> int | None:
    """The integer that an expression of constants alone comes to."""
    if isinstance(expression, ast.Constant):
        return expression.value if type(expression.value) is int else None
    if isinstance(expression, ast.BinOp):
        left, right = _folded(expression.left), _folded(expression.right)
        operators: dict[type, Callable[[int, int], int]] = {
            ast.Add: int.__add__,
            ast.Sub: int.__sub__,
            ast.Mult: int.__mul__,
        }
        function = operators.get(type(expression.op))
        return None if left is None or right is None or function is None else function(left, right)
    return None


# --- changing them ----------------------------------------------------------------------------------------------------


def rewrite(module: nn.Module, numbers: Numbers) -> None:
    """Give a module of our own methods with other numbers.

    Args:
        module: The module whose methods hold them.
        numbers: The new number at each place.
    """
    kind, before = _origin(type(module))
    module.__class__ = _with_numbers(kind, tuple(sorted({**before, **numbers}.items(), key=_order)))


def rewritten(module: nn.Module) -> Numbers:
    """The numbers in which a module's methods differ from those of its class; empty if it was never rewritten."""
    return _origin(type(module))[1]


def _order(item: tuple[Place, int]) -> tuple[Any, ...]:
    place = item[0]
    return place.method, place.line, place.column


def _origin(kind: type) -> tuple[type, Numbers]:
    """The class that a class was derived from by `rewrite`, and with which numbers."""
    found = vars(kind).get("_prunesearch_origin")
    return (kind, {}) if found is None else (found[0], dict(found[1]))


@functools.lru_cache(maxsize=256)
def _with_numbers(kind: type, numbers: tuple[tuple[Place, int], ...]) -> type:
    methods: dict[str, dict[Place, int]] = {}
    for place, number in numbers:
        methods.setdefault(place.method, {})[place] = number
    namespace = {name: _method(kind, name, changes) for name, changes in methods.items()}
    namespace |= {
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
        "__doc__": kind.__doc__,
        "__reduce_ex__": _reduce,
        "_prunesearch_origin": (kind, numbers),
    }
    return type(kind)(kind.__name__, (kind,), namespace)


def _reduce(self: Any, protocol: Any) -> Any:
    """Pickles as an instance of the caller's class and the numbers that differ."""
    kind, numbers = vars(type(self))["_prunesearch_origin"]
    reduced = super(type(self), self).__reduce_ex__(protocol)
    if reduced[0] not in (copyreg.__newobj__, copyreg._reconstructor):  # type: ignore[attr-defined]
        return reduced  # pickles in a way of its own
    return (_instance, (kind, numbers), *reduced[2:])


def _instance(kind: type, numbers: tuple[tuple[Place, int], ...]) -> Any:
    derived = _with_numbers(kind, numbers)
    return derived.__new__(derived)


def _method(kind: type, name: str, changes: Mapping[Place, int]) -> Any:
    """A method of a class with other numbers in its source."""
    original = _plain_function(kind, name)
    assert original is not None
    source = _changed(next(iter(changes)).source, changes)
    code = _compiled(original, source)
    cells = dict(zip(original.__code__.co_freevars, original.__closure__ or (), strict=True))
    closure = tuple(cells[free] for free in code.co_freevars)
    function = FunctionType(code, original.__globals__, original.__name__, original.__defaults__, closure)
    functools.update_wrapper(function, original)
    del function.__wrapped__  # type: ignore[attr-defined]
    function.__kwdefaults__ = original.__kwdefaults__
    method: Any = function
    for decorator in reversed(_definition(source).decorator_list):
        expression = compile(ast.Expression(decorator), original.__code__.co_filename, "eval")
        method = eval(expression, original.__globals__)(method)  # the caller's own decorator, one of torch's
    return method


def _changed(source: str, changes: Mapping[Place, int]) -> str:
    """Source with other numbers, line by line as it was."""
    lines = source.splitlines(keepends=True)
    expressions = {
        (item.lineno, item.col_offset): item
        for item in sorted(
            (item for item in ast.walk(ast.parse(source)) if isinstance(item, ast.expr) and _folded(item) is not None),
            key=lambda item: _length(item),
        )
    }  # of those that begin at one place the longest
    for place, number in sorted(changes.items(), key=_order, reverse=True):
        item = expressions[place.line, place.column]
        assert item.end_lineno is not None
        first, last = item.lineno - 1, item.end_lineno - 1
        head, tail = lines[first].encode()[: item.col_offset], lines[last].encode()[item.end_col_offset :]
        lines[first : last + 1] = [head.decode() + str(number) + "\n" * (last - first) + tail.decode()]
    return "".join(lines)


def _length(item: ast.expr) -> tuple[int, int]:
    return (item.end_lineno or 0), (item.end_col_offset or 0)


def _definition(source: str) -> ast.FunctionDef:
    (definition,) = ast.parse(source).body
    assert isinstance(definition, ast.FunctionDef)
    return definition


def _compiled(original: FunctionType, source: str) -> CodeType:
    """The code of a method from its source: compiled inside of a class and of the names that it took from around it."""
    digest = hashlib.sha256(source.encode()).hexdigest()[:12]
    filename = f"<{original.__qualname__} of {original.__code__.co_filename}, narrowed: {digest}>"
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)  # for who reads sources
    tree = ast.parse(source, filename)
    (definition,) = tree.body
    assert isinstance(definition, ast.FunctionDef)
    inner = ast.FunctionDef(**{name: getattr(definition, name) for name in definition._fields})
    inner.decorator_list = []
    owner = original.__qualname__.rpartition(".")[0].rpartition(".")[2] or "owner"
    body = ast.ClassDef(name=owner, bases=[], keywords=[], body=[ast.copy_location(inner, definition)], decorator_list=[])
    free = [ast.arg(name) for name in original.__code__.co_freevars if name != "__class__"]
    around = ast.FunctionDef(
        name="around",
        args=ast.arguments(posonlyargs=[], args=free, kwonlyargs=[], kw_defaults=[], defaults=[]),
        body=[body],
        decorator_list=[],
    )
    for node in (body, around):
        if "type_params" in node._fields:
            node.type_params = []  # type: ignore[attr-defined]
    tree.body = [around]
    ast.fix_missing_locations(tree)
    future = __future__.annotations.compiler_flag & original.__code__.co_flags
    code = compile(tree, filename, "exec", flags=future, dont_inherit=True)
    for name in ("around", owner, definition.name):
        code = next(item for item in code.co_consts if isinstance(item, CodeType) and item.co_name == name)
    return code


def replaced(value: Any, position: Sequence[int | str], number: int) -> Any:
    """Arguments with another number at a position."""
    if not position:
        return number
    step, *rest = position
    if isinstance(value, slice):
        parts = {name: getattr(value, name) for name in ("start", "stop", "step")}
        parts[str(step)] = replaced(parts[str(step)], rest, number)
        return slice(*parts.values())
    if isinstance(value, Mapping):
        return {**value, str(step): replaced(value[str(step)], rest, number)}
    return type(value)(replaced(item, rest, number) if i == step else item for i, item in enumerate(value))
