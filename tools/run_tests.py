"""Runs every part of the tests, goes on after a failure, and ends with one line a part."""

import subprocess
import sys
import time

from locations import ROOT, host_python

PYTEST = [str(host_python()), "-m", "pytest"]
PARTS = {
    "lint": [str(host_python()), "-m", "ruff", "check", "."],
    "format": [str(host_python()), "-m", "ruff", "format", "--check", "-q", "."],
    "unit": [*PYTEST, "tests/unit"],
    "host": [*PYTEST, "-n", "2", "tests/host"],
    "server": [*PYTEST, "tests/server"],
    "js": ["npx", "vitest", "run", "--dir", "tests/js"],
    "browser": [str(host_python()), "tests/browser/run.py"],
}


def main() -> None:
    lines, failed = [], []
    for name, command in PARTS.items():
        print(f"\n== {name}", flush=True)
        started = time.monotonic()
        if subprocess.run(command, cwd=ROOT).returncode:
            failed.append(name)
        lines.append(
            f"{name:8} {'FAILED' if name in failed else 'passed'}  {time.monotonic() - started:5.0f} s"
        )
    print("\n" + "\n".join(lines))
    sys.exit(f"Failed: {', '.join(failed)}." if failed else 0)


if __name__ == "__main__":
    main()
