"""Cuts what a few definitions need out of their modules, so that it stands alone as one plain Python file."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from rsi_ray.errors import ChampionError


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """Where a name comes from: `module`, and what it is called there; "" for the module itself."""

    module: str
    name: str

    def statement(self, alias: str) -> str:
        """The import that gives it this name."""
        if not self.name:
            return f"import {self.module}" if alias == self.module else f"import {self.module} as {alias}"
        renamed = "" if alias == self.name else f" as {alias}"
        return f"from {self.module} import {self.name}{renamed}"


@dataclass(kw_only=True)
class _Module:
    """A module's top level, by the names that it binds."""

    name: str
    source: str
    defined: dict[str, ast.stmt] = field(default_factory=dict)
    imported: dict[str, Origin] = field(default_factory=dict)

    def add(self, statement: ast.stmt) -> None:
        if isinstance(statement, ast.ImportFrom):
            module = self._absolute(statement)
            for alias in statement.names:
                self.imported[alias.asname or alias.name] = Origin(module=module, name=alias.name)
        elif isinstance(statement, ast.Import):
            for alias in statement.names:
                bound = alias.asname or alias.name.partition(".")[0]
                self.imported[bound] = Origin(module=alias.name if alias.asname else bound, name="")
        elif isinstance(statement, ast.If) and "TYPE_CHECKING" in ast.unparse(statement.test):
            for inner in statement.body:
                self.add(inner)
        else:
            self.defined |= dict.fromkeys(_bound(statement), statement)

    def _absolute(self, statement: ast.ImportFrom) -> str:
        if not statement.level:
            return statement.module or ""
        package = self.name.rsplit(".", statement.level)[0]
        return f"{package}.{statement.module}" if statement.module else package

    def text(self, statement: ast.stmt) -> str:
        """A statement with its decorators."""
        decorators = getattr(statement, "decorator_list", [])
        first = min([statement.lineno, *(one.lineno for one in decorators)])
        return "\n".join(self.source.splitlines()[first - 1 : statement.end_lineno])


def _bound(statement: ast.stmt) -> Iterator[str]:
    """Names that a statement binds in its module."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield statement.name
        return
    for node in ast.walk(statement):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name


class _Cut:
    """What is needed so far, of modules that are cut and of those that are imported."""

    def __init__(self, inside: Collection[str], taken: Mapping[str, Origin]) -> None:
        self._inside = inside
        self._modules: dict[str, _Module] = {}
        self._needed: dict[str, set[str]] = {}
        # of the one namespace that everything ends in
        self._origins = dict(taken)
        self.imports: set[str] = set()

    def need(self, origin: Origin, alias: str) -> None:
        """Take a name with all that it needs."""
        if origin.module.partition(".")[0] not in self._inside:
            self._bind(alias, origin)
            self.imports.add(origin.statement(alias))
            return
        if not origin.name:
            raise ChampionError(
                f"module {origin.module}: imported whole; expected `from {origin.module} import`"
            )
        module = self._module(origin.module)
        if origin.name in module.imported:
            self.need(module.imported[origin.name], alias)
            return
        if origin.name not in module.defined:
            raise ChampionError(f"module {origin.module}: no {origin.name} at its top level, which is needed")
        if alias != origin.name:
            raise ChampionError(f"{origin.module}:{origin.name}: imported as {alias}; expected its own name")
        self._take(module, origin)

    def _take(self, module: _Module, origin: Origin) -> None:
        needed = self._needed.setdefault(module.name, set())
        if origin.name in needed:
            return
        self._bind(origin.name, origin)
        needed.add(origin.name)
        for node in ast.walk(module.defined[origin.name]):
            if isinstance(node, ast.Name) and (node.id in module.defined or node.id in module.imported):
                found = module.imported.get(node.id) or Origin(module=module.name, name=node.id)
                self.need(found, node.id)

    def _bind(self, name: str, origin: Origin) -> None:
        known = self._origins.setdefault(name, origin)
        if known != origin:
            raise ChampionError(f"{name}: both {known.module} and {origin.module} have one; one file can't")

    def _module(self, name: str) -> _Module:
        if name not in self._modules:
            found = _Module(name=name, source=_source(name))
            for statement in ast.parse(found.source).body:
                found.add(statement)
            self._modules[name] = found
        return self._modules[name]

    def body(self) -> list[str]:
        """The statements, each after those of the modules that its own imports."""
        ordered: dict[str, None] = {}

        def visit(name: str) -> None:
            if name in ordered or name not in self._needed:
                return
            for origin in self._modules[name].imported.values():
                if origin.module != name:
                    visit(origin.module)
            ordered[name] = None

        for name in list(self._needed):
            visit(name)
        return [text for name in ordered for text in self._texts(self._modules[name])]

    def _texts(self, module: _Module) -> list[str]:
        needed = self._needed[module.name]
        wanted = {id(module.defined[name]): module.defined[name] for name in needed}
        return [module.text(one) for one in sorted(wanted.values(), key=lambda one: one.lineno)]


def _source(name: str) -> str:
    try:
        return inspect.getsource(importlib.import_module(name))
    except (ImportError, OSError, TypeError) as error:
        raise ChampionError(f"module {name}: its source can't be read: {error}") from None


def cut(roots: Sequence[Origin], inside: Collection[str], taken: Mapping[str, Origin]) -> str:
    """Imports and definitions that these need, in an order that runs.

    Args:
        roots: definitions at the top level of modules.
        inside: top-level packages whose code is cut out; all others are imported.
        taken: names that the file has beside.

    Raises:
        ChampionError: they can't be brought into one file.
    """
    found = _Cut(inside, taken)
    for root in roots:
        found.need(root, root.name)
    return "\n\n\n".join(["\n".join(sorted(found.imports)), *found.body()])
