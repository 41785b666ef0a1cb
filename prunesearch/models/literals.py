"""Numbers of channels that stand in the code of a forward: `x.view(-1, 64)`, `F.pad(x, (0, 0, 8, 8))`, `x[:, :32]`.

A slimmed network needs other numbers there, and nothing else may change. The module whose method holds them gets a
class derived from its own, in which that method is the caller's own source with the other numbers; a function that a
module holds, such as a lambda, is replaced in that module alone. Names, parameters, flags, random draws, context
managers and attributes are what they were; the module pickles, copies and scripts as before.

A number is only changed where it can be shown to be the one: the instruction that called the operator has a position
in the source (Python 3.11 and newer; before, its line must leave no doubt), and there stands an expression that comes
to this number whenever it runs: of constants, of names that the function took from around it, and of names that it
gives a constant once.
"""

from __future__ import annotations
import __future__

import ast
import copyreg
import functools
import hashlib
import inspect
import linecache
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import CodeType, FunctionType, MethodType
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary, WeakSet, WeakValueDictionary

from torch import Tensor, fx, nn

from prunesearch.models.recorded import Position, Site
from prunesearch.models.rounded import span_of, spans_of


@dataclass(frozen=True)
class Source:
    """The text of a function, so that it can be compiled by itself, with the columns that it has in its file.

    Attributes:
        text: One line in front, then the lines of the function.
        line: Number of the function's first line in its file.
    """

    text: str
    line: int

    @property
    def definition(self) -> ast.FunctionDef | ast.Lambda:
        """The function in the text's syntax tree."""
        kinds = (ast.FunctionDef, ast.Lambda)
        return next(node for node in ast.walk(ast.parse(self.text)) if isinstance(node, kinds))


@dataclass(frozen=True)
class Place:
    """A number in the source of a function that belongs to a module.

    Attributes:
        function: Name of the method in the module's class, or of the attribute that holds the function.
        line: Of the function's source, from 0.
        column: In the line, in bytes.
        number: What the expression comes to that begins there.
        source: Of the function.
    """

    function: str
    line: int
    column: int
    number: int
    source: Source = field(repr=False, compare=False, default=Source("", 0))


Numbers: TypeAlias = Mapping[Place, int]
"""The new number at each place."""
_DERIVED = "_prunesearch_origin"
_REPLACED = "_prunesearch_functions"
_CHANGES = "_prunesearch_changes"
_SOURCES: WeakKeyDictionary[FunctionType, Source | None] = WeakKeyDictionary()
_KINDS: WeakValueDictionary[tuple[type, tuple[tuple[Place, int], ...]], type] = WeakValueDictionary()
_READABLE: dict[str, WeakSet[FunctionType]] = {}
"""By the names of files that `linecache` was told of: the functions in them."""


# --- finding them -----------------------------------------------------------------------------------------------------


def place_of(module: nn.Module, site: Site, node: fx.Node, position: Position) -> tuple[Place, int] | None:
    """Where the number at a position of a node's arguments stands in a function that belongs to `module`.

    Returns:
        The place, and what stands there now, which is another number if the function was rewritten before. None if that
        cannot be shown: it is not the module's, or it is computed of something that may change.
    """
    found = _function_with(module, site.code)
    if found is None:
        return None
    name, function = found
    source = source_of(function)
    call = None if source is None else _call(source, function, site, node)
    expression = None if call is None else argument_of(call, node, position)
    if source is None or expression is None:
        return None
    number = _folded(expression, _constants(source, function))
    if number is None or number < 0:
        return None
    place = Place(name, expression.lineno - 2, expression.col_offset, number, source)
    return place, _changes_in(function).get(place, number)


def places_in(module: nn.Module, name: str) -> Iterator[Place]:
    """Every number in a function that belongs to `module` and is the same whenever it runs."""
    function = _function(module, name)
    source = None if function is None else source_of(function)
    if function is None or source is None:
        return
    constants = _constants(source, function)
    for expression in _expressions(source):
        number = _folded(expression, constants)
        if number is not None:
            yield Place(name, expression.lineno - 2, expression.col_offset, number, source)


def _expressions(source: Source) -> list[ast.expr]:
    return [node for node in ast.walk(source.definition) if isinstance(node, ast.expr)]


def _function_with(module: nn.Module, code: CodeType) -> tuple[str, FunctionType] | None:
    """The method or held function of a module that runs some code, itself or in a function of its own."""
    held = [name for name, value in vars(module).items() if isinstance(value, FunctionType)]
    names = [code.co_name, *held, *(name for kind in type(module).__mro__ for name in vars(kind))]
    for name in dict.fromkeys(names):
        function = _function(module, name)
        if function is not None and _holds(function.__code__, code):
            return name, function
    return None


def _function(module: nn.Module, name: str) -> FunctionType | None:
    """A plain function that a module holds, or a method of its class beneath decorators; None for anything else."""
    found = vars(module).get(name)
    if isinstance(found, FunctionType):
        return None if hasattr(found, "__wrapped__") else found
    found = inspect.getattr_static(type(module), name, None)
    if not isinstance(found, FunctionType):
        return None
    inner = inspect.unwrap(found)
    return inner if isinstance(inner, FunctionType) else None


def _holds(outer: CodeType, code: CodeType) -> bool:
    return outer is code or any(isinstance(item, CodeType) and _holds(item, code) for item in outer.co_consts)


def source_of(function: FunctionType) -> Source | None:
    """The source of a function as the caller wrote it; None if it cannot be read, or not be run again as it is."""
    changes = _changes_in(function)
    return next(iter(changes)).source if changes else _read_source(function)


def _changes_in(function: FunctionType) -> Numbers:
    """What `rewrite` changed in a function."""
    return vars(function).get(_CHANGES, {})


def _read_source(function: FunctionType) -> Source | None:
    if function not in _SOURCES:
        _SOURCES[function] = _found_source(function)
    return _SOURCES[function]


def _found_source(function: FunctionType) -> Source | None:
    try:
        source = _lambda(function) if function.__name__ == "<lambda>" else _definition(function)
    except (OSError, TypeError, SyntaxError, IndentationError, StopIteration):
        return None
    if source is None or not set(_compiled_names(source)) <= set(_names(function.__code__)):
        return None  # the file is another one than was imported
    return source


def _definition(function: FunctionType) -> Source | None:
    lines, first = inspect.getsourcelines(function)
    is_indented = lines[0][:1].isspace()
    source = Source(("if True:\n" if is_indented else "\n") + "".join(lines), first)
    definition = source.definition
    if not isinstance(definition, ast.FunctionDef) or not _can_be_decorated_again(definition, function):
        return None
    return source


def _lambda(function: FunctionType) -> Source | None:
    """The only lambda at the function's place in its file, with spaces for whatever else is on its lines."""
    lines = linecache.getlines(function.__code__.co_filename, function.__globals__)
    code = function.__code__
    found = [
        node
        for node in ast.walk(ast.parse("".join(lines)))
        if isinstance(node, ast.Lambda) and node.lineno == code.co_firstlineno and _is_of(node, code)
    ]
    if len(found) != 1:
        return None
    (node,) = found
    assert node.end_lineno is not None
    rows = [line.encode() for line in lines[node.lineno - 1 : node.end_lineno]]
    rows[-1] = rows[-1][: node.end_col_offset] + b"\n"
    rows[0] = b" " * node.col_offset + rows[0][node.col_offset :]
    return Source("(\n" + b"".join(rows).decode() + ")\n", node.lineno)


def _is_of(node: ast.Lambda, code: CodeType) -> bool:
    """Whether a lambda has the arguments of some code, and its instructions lie in it."""
    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    n = code.co_argcount + code.co_kwonlyargcount
    if [argument.arg for argument in arguments] != list(code.co_varnames[:n]):
        return False
    if not hasattr(code, "co_positions"):
        return True
    inside = ((line, column) for line, _, column, _ in code.co_positions() if line is not None and column)
    return all(
        (node.lineno, node.col_offset) <= at <= (node.end_lineno or 0, node.end_col_offset or 0) for at in inside
    )


def _can_be_decorated_again(definition: ast.FunctionDef, function: FunctionType) -> bool:
    """Whether its decorators are torch's own, such as `torch.no_grad()`; others might do anything when called again."""
    for decorator in definition.decorator_list:
        root: Any = decorator
        while isinstance(root, (ast.Call, ast.Attribute)):
            root = root.func if isinstance(root, ast.Call) else root.value
        value = function.__globals__.get(root.id) if isinstance(root, ast.Name) else None
        owner: Any = getattr(value, "__module__", None) or getattr(value, "__name__", "")
        if owner.partition(".")[0] != "torch":
            return False
    return True


def _call(source: Source, function: FunctionType, site: Site, node: fx.Node) -> ast.Call | ast.Subscript | None:
    """The expression that called the operator."""
    offset = 0 if _changes_in(function) else source.line - 2  # a rewritten function has the lines of its text
    calls = [item for item in _expressions(source) if isinstance(item, (ast.Call, ast.Subscript))]
    span = span_of(site.code, site.instruction)
    if span is None:  # Python 3.10
        at = [call for call in calls if call.lineno <= site.line - offset <= (call.end_lineno or 0)]
    else:
        moved = (span[0] - offset, span[1] - offset, *span[2:])
        at = [call for call in calls if moved in spans_of(call)]
    at = [call for call in at if _calls(call, node, function.__globals__)]
    return at[0] if len(at) == 1 else None


def _calls(call: ast.Call | ast.Subscript, node: fx.Node, names: Mapping[str, Any]) -> bool:
    """Whether an expression can be the call of a node's operator."""
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    if isinstance(call, ast.Subscript):
        return name in ("getitem", "set_item")
    if isinstance(call.func, ast.Attribute):
        return call.func.attr == name or (name == "fn" and "pool" in call.func.attr)
    return isinstance(call.func, ast.Name) and (call.func.id == name or names.get(call.func.id) is node.target)


def argument_of(call: ast.Call | ast.Subscript, node: fx.Node, position: Position) -> ast.expr | None:
    """The expression of one argument, or of an item of it."""
    first, *rest = position
    found: ast.expr | None
    if isinstance(call, ast.Subscript):
        found = call.slice if first == 1 else None
    elif isinstance(first, str):
        found = next((keyword.value for keyword in call.keywords if keyword.arg == first), None)
    else:
        index = first - (node.op == "call_method")
        before = call.args[: index + 1]
        if any(isinstance(argument, ast.Starred) for argument in before):
            return None
        target = getattr(Tensor, str(node.target), None) if node.op == "call_method" else node.target
        found = before[index] if 0 <= index < len(before) else _by_keyword(call, target, first)
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


# --- expressions that always come to the same number ------------------------------------------------------------------

_ARITHMETIC: Mapping[type, Callable[[int, int], int]] = {
    ast.Add: int.__add__,
    ast.Sub: int.__sub__,
    ast.Mult: int.__mul__,
    ast.FloorDiv: lambda a, b: a // b if b else -1,
    ast.Pow: lambda a, b: a**b if 0 <= b < 64 else -1,
}


def _folded(expression: ast.expr, constants: Mapping[str, int]) -> int | None:
    """The integer that an expression comes to, of constants and names of them alone."""
    if isinstance(expression, ast.Constant):
        return expression.value if type(expression.value) is int else None
    if isinstance(expression, ast.Name):
        return constants.get(expression.id)
    if isinstance(expression, ast.BinOp) and type(expression.op) in _ARITHMETIC:
        left, right = _folded(expression.left, constants), _folded(expression.right, constants)
        return None if left is None or right is None else _ARITHMETIC[type(expression.op)](left, right)
    return None


def _constants(source: Source, function: FunctionType) -> dict[str, int]:
    """Names that are one integer whenever the function runs: from around it, or given a constant once in it."""
    found: dict[str, int] = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        value = None if name == "__class__" else cell.cell_contents
        if type(value) is int:
            found[name] = value
    definition = source.definition
    bound = [
        node.id for node in ast.walk(definition) if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)
    ]
    if any(isinstance(node, (ast.Nonlocal, ast.Global)) for node in ast.walk(definition)):
        return {}
    arguments = {node.arg for node in ast.walk(definition) if isinstance(node, ast.arg)}
    for statement in definition.body if isinstance(definition, ast.FunctionDef) else ():
        if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
            target = statement.targets[0]
            if isinstance(target, ast.Name) and bound.count(target.id) == 1 and target.id not in arguments:
                value = _folded(statement.value, found)
                if value is not None:
                    found[target.id] = value
    return found


# --- changing them ----------------------------------------------------------------------------------------------------


def rewrite(module: nn.Module, numbers: Numbers) -> None:
    """Give a module of our own functions with other numbers.

    Args:
        module: The module that they belong to.
        numbers: The new number at each place.
    """
    if not numbers:
        return
    held = {place: number for place, number in numbers.items() if place.function in vars(module)}
    for name in {place.function for place in held}:
        original, before = _held_functions(module).get(name, (vars(module)[name], {}))
        _hold(module, name, original, {**before, **{at: number for at, number in held.items() if at.function == name}})
    methods = {place: number for place, number in numbers.items() if place not in held}
    kind, changes = _origin(type(module))
    bound = {key: value for key, value in vars(module).items() if _is_method_of(module, value)}
    module.__class__ = _derived(kind, tuple(sorted({**changes, **methods}.items(), key=_order)))
    vars(module).update({key: getattr(module, value.__name__) for key, value in bound.items()})


def _is_method_of(module: nn.Module, value: Any) -> bool:
    """Whether a value is a method that the module took from itself, as in `self.run = self._run`."""
    if not isinstance(value, MethodType) or value.__self__ is not module:
        return False
    return inspect.getattr_static(type(module), value.__name__, None) is value.__func__


def _hold(module: nn.Module, name: str, original: FunctionType, changes: Mapping[Place, int]) -> None:
    vars(module)[name] = _with_numbers(original, changes)
    vars(module)[_REPLACED] = {**_held_functions(module), name: (original, dict(changes))}


def rewritten(module: nn.Module) -> Numbers:
    """The numbers in which a module's functions differ from the caller's; empty if it was never rewritten."""
    found = dict(_origin(type(module))[1])
    for _, changes in _held_functions(module).values():
        found.update(changes)
    return found


def _held_functions(module: nn.Module) -> dict[str, tuple[FunctionType, dict[Place, int]]]:
    return vars(module).get(_REPLACED, {})


def _order(item: tuple[Place, int]) -> tuple[Any, ...]:
    place = item[0]
    return place.function, place.line, place.column


def _origin(kind: type) -> tuple[type, Numbers]:
    """The class that a class was derived from by `rewrite`, and with which numbers."""
    found = vars(kind).get(_DERIVED)
    return (kind, {}) if found is None else (found[0], dict(found[1]))


def _derived(kind: type, numbers: tuple[tuple[Place, int], ...]) -> type:
    """A class that differs from `kind` in its numbers; the same one as long as anything has it."""
    derived = _KINDS.get((kind, numbers))
    if derived is None:
        derived = _KINDS[kind, numbers] = _made(kind, numbers)
    return derived


def _made(kind: type, numbers: tuple[tuple[Place, int], ...]) -> type:
    """A class that differs from `kind` in its numbers, made without a word to whoever registers classes."""
    methods: dict[str, dict[Place, int]] = {}
    for place, number in numbers:
        methods.setdefault(place.function, {})[place] = number
    namespace = {name: _method(kind, name, changes) for name, changes in methods.items()}
    namespace |= {
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
        "__doc__": kind.__doc__,
        "__reduce_ex__": _reduce,
        _DERIVED: (kind, numbers),
    }
    derived = type.__new__(type(kind), kind.__name__, (nn.Module,), namespace)
    derived.__bases__ = (kind,)
    return derived


def _reduce(self: Any, protocol: Any) -> Any:
    """Pickles as an instance of the caller's class, with his functions, and the numbers that differ."""
    kind, numbers = vars(type(self))[_DERIVED]
    reduced = super(type(self), self).__reduce_ex__(protocol)
    if reduced[0] not in (copyreg.__newobj__, copyreg._reconstructor):  # type: ignore[attr-defined]
        return reduced  # pickles in a way of its own
    held, (state, *rest) = _held_functions(self), reduced[2:]
    if isinstance(state, dict):
        state = {name: value for name, value in state.items() if name not in (*held, _REPLACED)}
    return (_instance, (kind, numbers, held), state, *rest)


def _instance(
    kind: type, numbers: tuple[tuple[Place, int], ...], held: Mapping[str, tuple[FunctionType, Mapping[Place, int]]]
) -> Any:
    derived: Any = _derived(kind, numbers)
    made = derived.__new__(derived)
    for name, (original, changes) in held.items():
        _hold(made, name, original, changes)
    return made


def _method(kind: type, name: str, changes: Mapping[Place, int]) -> Any:
    """A method of a class with other numbers in its source."""
    original = inspect.unwrap(inspect.getattr_static(kind, name))
    function: Any = _with_numbers(original, changes)
    definition = next(iter(changes)).source.definition
    for decorator in reversed(definition.decorator_list) if isinstance(definition, ast.FunctionDef) else ():
        expression = compile(ast.Expression(decorator), original.__code__.co_filename, "eval")
        function = eval(expression, original.__globals__)(function)  # the caller's own decorator, one of torch's
    return function


def _with_numbers(original: FunctionType, changes: Mapping[Place, int]) -> FunctionType:
    """A function with other numbers in its source, and everything else of the original."""
    source = next(iter(changes)).source
    code = _compiled(original, source, changes)
    cells = dict(zip(original.__code__.co_freevars, original.__closure__ or (), strict=True))
    closure = tuple(cells[free] for free in code.co_freevars)
    function = FunctionType(code, original.__globals__, original.__name__, original.__defaults__, closure)
    functools.update_wrapper(function, original)
    del function.__wrapped__  # type: ignore[attr-defined]
    function.__kwdefaults__ = original.__kwdefaults__
    vars(function)[_CHANGES] = dict(changes)
    _READABLE.setdefault(code.co_filename, WeakSet()).add(function)
    weakref.finalize(function, _forget, code.co_filename).atexit = False
    return function


def _forget(filename: str) -> None:
    """Let `linecache` forget a source once no function has it."""
    if not any(True for _ in _READABLE.get(filename, ())):
        _READABLE.pop(filename, None)
        linecache.cache.pop(filename, None)


def _expression_at(tree: ast.AST, place: Place, constants: Mapping[str, int]) -> ast.expr:
    """The longest expression that begins at a place and comes to its number."""
    at = place.line + 2, place.column
    found = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.expr)
        and (node.lineno, node.col_offset) == at
        and _folded(node, constants) == place.number
    ]
    return max(found, key=lambda node: (node.end_lineno or 0, node.end_col_offset or 0))


def _changed_text(source: Source, constants: Mapping[str, int], changes: Numbers) -> str:
    """The text with other numbers, line by line as it was."""
    lines = [line.encode() for line in source.text.splitlines(keepends=True)]
    definition = source.definition
    for place, number in sorted(changes.items(), key=_order, reverse=True):
        expression = _expression_at(definition, place, constants)
        assert expression.end_lineno is not None
        first, last = expression.lineno - 1, expression.end_lineno - 1
        head, tail = lines[first][: expression.col_offset], lines[last][expression.end_col_offset :]
        lines[first : last + 1] = [head + str(number).encode() + b"\n" * (last - first) + tail]
    return b"".join(lines).decode()


class _Replacing(ast.NodeTransformer):
    """Puts numbers in the places of some expressions; everything keeps its position."""

    def __init__(self, numbers: Mapping[ast.expr, int]) -> None:
        self._numbers = numbers

    def visit(self, node: ast.AST) -> ast.AST:
        if node in self._numbers:
            return ast.copy_location(ast.Constant(self._numbers[node]), node)  # type: ignore[index]
        return self.generic_visit(node)


def _compiled(original: FunctionType, source: Source, changes: Numbers) -> CodeType:
    """The code of a function with other numbers; its instructions have the positions of the caller's source."""
    constants = _constants(source, original)
    text = _changed_text(source, constants, changes)
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    filename = f"<{original.__qualname__} of {original.__code__.co_filename}, narrowed: {digest}>"
    linecache.cache[filename] = (len(text), None, text.splitlines(keepends=True), filename)  # for whoever reads sources
    tree = ast.parse(source.text, filename)
    places = {_expression_at(tree, place, constants): number for place, number in changes.items()}
    definition = next(node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.Lambda)))
    replaced = _Replacing(places).visit(definition)
    assert isinstance(replaced, (ast.FunctionDef, ast.Lambda))
    owner = original.__qualname__.rpartition(".")[0].rpartition(".")[2].strip("<>") or "owner"
    future = __future__.annotations.compiler_flag & original.__code__.co_flags
    enclosed = _enclosed(replaced, owner, original.__code__.co_freevars)
    code = compile(enclosed, filename, "exec", flags=future, dont_inherit=True)
    for name in ("around", owner, original.__code__.co_name):
        code = next(item for item in code.co_consts if isinstance(item, CodeType) and item.co_name == name)
    return code


def _enclosed(definition: ast.FunctionDef | ast.Lambda, owner: str, free: Sequence[str]) -> ast.Module:
    """A function in a class in a function that has the names it takes from around it; nothing of it is ever run."""
    if isinstance(definition, ast.FunctionDef):
        definition.decorator_list = []
    statement = definition if isinstance(definition, ast.FunctionDef) else ast.Expr(definition)
    template = ast.parse(
        f"def around({', '.join(name for name in free if name != '__class__')}):\n class {owner}: pass"
    )
    around = template.body[0]
    assert isinstance(around, ast.FunctionDef)
    inside = around.body[0]
    assert isinstance(inside, ast.ClassDef)
    inside.body = [statement]
    return ast.fix_missing_locations(template)


def _names(code: CodeType) -> Iterator[str]:
    yield from (*code.co_names, *code.co_varnames, *code.co_freevars, *code.co_cellvars)
    for item in code.co_consts:
        if isinstance(item, CodeType):
            yield from _names(item)


def _compiled_names(source: Source) -> Iterator[str]:
    """Attributes that the source asks for, besides those in annotations and decorators."""
    body = source.definition.body
    rest: list[ast.AST] = [*body] if isinstance(body, list) else [body]
    while rest:
        node = rest.pop()
        if isinstance(node, ast.Attribute) and not node.attr.startswith("__"):
            yield node.attr
        for name, value in ast.iter_fields(node):
            if name not in ("annotation", "returns", "decorator_list"):
                rest += [item for item in (value if isinstance(value, list) else [value]) if isinstance(item, ast.AST)]


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
