"""What pytest-benchmark's table leaves out is printed beside it: images/s, memory, ratios to the peer."""

from __future__ import annotations


def pytest_terminal_summary(terminalreporter, config):
    session = getattr(config, "_benchmarksession", None)  # None without that plugin
    told = [one for one in session.benchmarks if one.extra_info] if session else []
    if told:
        terminalreporter.section("measured")
    for one in told:
        terminalreporter.write_line(f"{one.name}: " + ", ".join(f"{name} {value}" for name, value in one.extra_info.items()))
