"""Task environments: one file or folder each."""


def register() -> None:
    """Enter every scenario and executor into the registry."""
    from jaxmas.environments import longchain, probes, signals  # noqa: F401
    from jaxmas.environments.workflow import executors, pool, scenarios  # noqa: F401
