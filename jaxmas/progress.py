"""Progress on standard error: a bar where a person watches, nothing where the output goes to a file."""

import contextlib
import sys
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def progress(description: str, total: float | None = None) -> Iterator[Callable[[float], None]]:
    """Show a bar while the block runs; call what it yields with the work done since the last call."""
    if not sys.stderr.isatty():
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    # A bar without a total shows that something happens; the time left would be a guess.
    ends = (TimeElapsedColumn(), TimeRemainingColumn()) if total else (TimeElapsedColumn(),)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), *ends)
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(description, total=total)
        yield lambda done: bars.advance(task, done)
