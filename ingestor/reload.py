"""SIGHUP: the settings read anew while the daemon runs.

Decides what of a change applies at once and what waits for a restart. Must never apply anything of settings that
cannot be used as a whole, nor show a value: one of them holds a password.
"""

from collections.abc import Callable
from typing import Any, Final

from ingestor.logs import set_log_level
from ingestor.settings import Settings, SettingsProblem

AT_ONCE: Final = frozenset({"log_level"})
MAX_PROBLEM_CHARACTERS: Final = 4000


class Reload:
    """`on_hangup` is for the signal; `begin` says where to tell what came of it, and meets an earlier request."""

    def __init__(self, settings: Settings, load: Callable[[], Settings]) -> None:
        self._running: Final = settings
        self._log_level = settings.log_level
        self._load: Final = load
        self.note: Callable[..., Any] | None = None
        self._is_due = False

    def begin(self, note: Callable[..., Any]) -> None:
        """From now on tell here; a request that came earlier is met now."""
        self.note = note
        if self._is_due:
            self.on_hangup()

    def on_hangup(self) -> None:
        """Read, check, apply what can be applied; settings that cannot be used leave everything as it was."""
        if self.note is None:
            self._is_due = True
            return
        try:
            settings = self._load()
        except SettingsProblem as problem:
            self.note("settings_refused", "error", problems=str(problem)[:MAX_PROBLEM_CHARACTERS])
            return
        changed = [
            name
            for name in Settings.model_fields
            if name not in AT_ONCE and getattr(settings, name) != getattr(self._running, name)
        ]
        applied = settings.log_level.lower() != self._log_level.lower()
        self._log_level = settings.log_level
        set_log_level(settings.log_level)
        self.note(
            "settings_reloaded",
            "warning" if changed else "info",
            applied="log_level" if applied else "",
            needs_restart=" ".join(changed),
        )
