"""What lets pytest start where a plugin that pyproject.toml has settings for is not installed, as on a GPU machine."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    """Makes the setting `timeout` known: pytest refuses the settings of plugins that are missing."""
    if not pluginmanager.hasplugin("timeout"):
        parser.addini("timeout", "read by pytest-timeout, which is not installed: nothing stops a test that hangs")
