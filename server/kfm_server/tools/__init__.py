"""The tools that ship with the product, by name."""

from collections.abc import Mapping

from kfm_server.ports.tools import Tool
from kfm_server.tools.calculator import Calculator
from kfm_server.tools.todo_store import TodoStore

BUILTIN_TOOLS: Mapping[str, Tool] = {"calculator": Calculator(), "todo_store": TodoStore()}
