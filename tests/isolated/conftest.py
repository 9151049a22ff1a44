"""These tests run in an environment without torch (`nox -s isolated`); elsewhere they are not collected."""

from importlib.util import find_spec

collect_ignore_glob = ["test_*.py"] if find_spec("torch") else []
