"""Every task and thread has somebody who sees it end: they are started in few places, and each is told here."""

import ast
from collections.abc import Iterator
from typing import Final

from tests.repo.tree import ROOT, modules

STARTS: Final = frozenset(
    {
        *("create_task", "ensure_future", "TaskGroup", "run_coroutine_threadsafe"),
        *("asyncio.gather", "asyncio.shield", "asyncio.as_completed"),
        *("Thread", "Timer", "ThreadPoolExecutor", "Process", "ProcessPoolExecutor"),
    }
)
"""What begins something that may end, in whichever way, while nobody looks."""
HANDS_OVER: Final = frozenset({"to_thread", "run_in_executor"})
"""What gives work to a thread; whoever awaits it at once sees it end."""

SEEN: Final[dict[str, tuple[set[str], str]]] = {
    "consumers/tasks.py": (
        {"TaskGroup", "create_task", "asyncio.gather"},
        "The library's: a companion begins again and says so, what lives together ends together, and all that are "
        "waited for together are looked at, one by one (tests/consumers/test_tasks.py).",
    ),
    "consumers/reading/state_watch.py": (
        {"create_task"},
        "The question of one look: the look waits for it, gets its error, and cancels it on every way out.",
    ),
    "consumers/rest/calls.py": (
        {"ThreadPoolExecutor"},
        "Whoever calls awaits the future of its own call, within a bound; what is given up is shut.",
    ),
    "consumers/rest/flights.py": (
        {"asyncio.shield"},
        "Of a future, not a task: the one who asks sets it, however that ends.",
    ),
    "consumers/sync/portal.py": (
        {"Thread", "create_task"},
        "The thread logs what it ended with, and every call finds it gone; who asked has what its task brought.",
    ),
    "ingestor/parts.py": (
        {"TaskGroup", "create_task"},
        "The daemon's: a part that ends in any way ends the daemon (tests/ingestor/test_parts.py).",
    ),
    "ingestor/assets/question.py": (
        {"Thread"},
        "Answers whatever happens within; whoever asked waits for at most a minute, and tells.",
    ),
    "ingestor/feed/transport.py": (
        {"asyncio.shield"},
        "Of a future, not a task: the end of the connection, which picows tells.",
    ),
    "ingestor/log_lines.py": ({"Thread"}, "Lines that it no longer takes are counted as dropped."),
    "ingestor/spool/thread.py": (
        {"Thread"},
        "Every operation's end goes to its future; one without an end is a disk that hangs, which is told.",
    ),
    "simulator/pytest_plugin.py": (
        {"Thread", "run_coroutine_threadsafe"},
        "The fixture waits for its beginning and its end, and for each call.",
    ),
    "simulator/reception.py": (
        {"TaskGroup", "create_task"},
        "A session's writer: its session ends it, and ends when it fails.",
    ),
    "simulator/server.py": (
        {"TaskGroup", "create_task"},
        "What makes quotes: the simulator ends when one fails; a tape may come to its end.",
    ),
}
"""Where tasks and threads are started, by which names, and who sees each of them end."""


def calls(tree: ast.Module) -> Iterator[tuple[str, bool]]:
    """Each call by its name, with and without its module, and whether it is awaited where it stands."""
    awaited = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Await)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            is_awaited = id(node) in awaited
            yield ast.unparse(node.func), is_awaited
            if isinstance(node.func, ast.Attribute):
                yield node.func.attr, is_awaited


def test_tasks_and_threads_are_started_where_somebody_sees_them_end() -> None:
    """A new place needs a row above, and with it an answer: who notices when this has ended?"""
    found: dict[str, set[str]] = {}
    for path in modules():
        names = {name for name, _ in calls(ast.parse(path.read_text())) if name in STARTS}
        if names:
            found[str(path.relative_to(ROOT))] = names
    assert found == {place: names for place, (names, _) in SEEN.items()}


def test_asyncio_is_called_by_its_name() -> None:
    """What is imported from it under another name would escape the table."""
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text())):
            assert not (isinstance(node, ast.ImportFrom) and node.module == "asyncio"), path
            if isinstance(node, ast.Import):
                assert all(each.asname is None for each in node.names if each.name == "asyncio"), path


def test_work_for_a_thread_is_awaited_where_it_is_handed_over() -> None:
    """So that its failure is that of whoever handed it over."""
    for path in modules():
        for name, is_awaited in calls(ast.parse(path.read_text())):
            assert is_awaited or name not in HANDS_OVER, (path.relative_to(ROOT), name)
