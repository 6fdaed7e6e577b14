"""The package uses nothing of rclpy that Humble's does not have: names, and keywords of calls.

Humble has no wheels, so this stands in for a run on it. A class that is not in
``humble_rclpy.yaml`` has to be looked up in rclpy's branch humble, and added.
"""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterable
from itertools import chain
from typing import NamedTuple

import pytest
import yaml

from test.ros.peers import REPOSITORY

HUMBLE = yaml.safe_load((REPOSITORY / "test/ros/humble_rclpy.yaml").read_text())
MODULES = [
    *("client", "clock", "context", "duration", "executors", "guard_condition", "lifecycle"),
    *("logging", "node", "parameter", "publisher", "qos", "service", "signals", "subscription"),
    *("task", "time", "timer", "topic_endpoint_info", "impl.rcutils_logger"),
]


class Use(NamedTuple):
    """A name of rclpy, and the keywords with which it is called."""

    name: str
    keywords: frozenset[str] = frozenset()


def humble_members() -> dict[str, set[str]]:
    """Attributes and methods of Humble's classes, with their parameters."""
    members: dict[str, set[str]] = {}
    for of_class in HUMBLE["members"].values():
        for name in of_class.get("plain", ()):
            members.setdefault(name, set())
        for name, parameters in of_class.items():
            if name != "plain":
                members.setdefault(name, set()).update(parameters)
    return members


def installed_members() -> set[str]:
    """Attributes and methods of the classes of the rclpy that is installed here."""
    modules = [importlib.import_module(f"rclpy.{name}") for name in MODULES]
    classes = {c for m in modules for _, c in inspect.getmembers(m, inspect.isclass)}
    bases = [b for c in classes for b in c.__mro__ if b.__module__.startswith("rclpy")]
    enumerations = [c.__members__ for c in bases if hasattr(c, "__members__")]
    names = chain(*map(vars, bases), *enumerations)
    return {name for name in names if not name.startswith("_")}


class WithoutNewer(ast.NodeTransformer):
    """Drops what a file tries and does without: the body of ``try`` ... ``except ImportError``."""

    def visit_Try(self, node: ast.Try) -> ast.AST | list[ast.stmt]:
        """Keep only what is done where the attempt fails."""
        caught = {ast.unparse(handler.type) for handler in node.handlers if handler.type}
        if caught & {"ImportError", "TypeError"}:
            return [statement for handler in node.handlers for statement in handler.body]
        return self.generic_visit(node)


def imports(tree: ast.Module) -> dict[str, str]:
    """Return the full names of what a file imports, by the names that it has there."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            found |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
        elif isinstance(node, ast.Import):
            roots = {a.name.split(".")[0] for a in node.names if not a.asname}
            found |= {root: root for root in roots}
            found |= {a.asname: a.name for a in node.names if a.asname}
    return found


def uses(tree: ast.Module, members: Iterable[str]) -> tuple[set[Use], set[Use]]:
    """Return what a file imports of rclpy or calls by its full name, and the members it uses.

    A member is any attribute with one of the names ``members``, unless it is known to belong to
    another module or to the file itself: types are not inferred.
    """
    known = imports(tree)
    keywords = {
        id(node.func): frozenset(k.arg for k in node.keywords if k.arg)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
    }
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    names = {Use(full) for full in known.values() if full.startswith("rclpy.")}
    of_objects = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.Name | ast.Attribute):
            continue
        root, *rest = ast.unparse(node).split(".")
        full = ".".join([known.get(root, ""), *rest])
        parent, _, last = full.rpartition(".")
        called, is_name = keywords.get(id(node)), full.replace(".", "").isidentifier()
        is_member = parent in HUMBLE["members"] or not (root in known or last in own)
        if isinstance(node, ast.Attribute) and is_member and last in members:
            of_objects.add(Use(last, called or frozenset()))
        elif full.startswith("rclpy.") and called is not None and is_name:
            names.add(Use(full, called))
    return names, of_objects


def missing(trees: Iterable[ast.Module]) -> list[str]:
    """What Humble lacks of what the files use."""
    of_classes = humble_members()
    members = installed_members() | of_classes.keys()
    lacking = set()
    for tree in map(WithoutNewer().visit, trees):
        for used, humble in zip(uses(tree, members), (HUMBLE["calls"], of_classes), strict=True):
            for use in used:
                if use.name not in humble:
                    lacking.add(use.name)
                elif not use.keywords <= set(humble[use.name]):
                    lacking.add(f"{use.name}({', '.join(sorted(use.keywords))})")
    return sorted(lacking)


def test_the_package_uses_only_what_humble_has():
    texts = [path.read_text() for path in (REPOSITORY / "panoptic_ros").rglob("*.py")]
    trees = [ast.parse(text) for text in texts if "rclpy" in text]
    assert len(trees) > 5
    assert missing(trees) == []


@pytest.mark.parametrize(
    ("code", "lacking"),
    [
        ("from rclpy.event_handler import Callbacks", ["rclpy.event_handler.Callbacks"]),
        ("rclpy.init(context=c, nothing=1)", ["rclpy.init(context, nothing)"]),
        ("rclpy.spin_soon(node)", ["rclpy.spin_soon"]),
        ("node.create_timer(1.0, call, autostart=False)", ["create_timer(autostart)"]),
        ("node.get_type_description()", []),  # no rclpy has it: it is something else's
        ("node.add_post_set_parameters_callback(f)", ["add_post_set_parameters_callback"]),
        ("try:\n  from rclpy.new import A\nexcept ImportError:\n  A = None", []),
        ("from rclpy.time import Time\nTime.from_msg(m, clock_type=c)", []),
        ("import sys\nsys.version", []),
        ("self.create_timer(1.0, call, clock=clock)", []),
    ],
)
def test_what_is_newer_is_found(code, lacking):
    assert missing([ast.parse(f"import rclpy\n{code}")]) == lacking
