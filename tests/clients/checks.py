"""What the client scripts share: named checks, one exit code."""

import argparse
import sys
import time
import traceback


def arguments(what: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=what)
    parser.add_argument("base_url", help="http://HOST:PORT of the provider or of Envoy")
    parser.add_argument(
        "--cached",
        action="store_true",
        help="expect repeats to be answered from Sluice's cache",
    )
    parser.add_argument("--key", default="sk-client-check")
    return parser.parse_args()


def expect(condition: bool, found: object) -> None:
    """Fails with what was found instead."""
    if not condition:
        raise AssertionError(f"found {found!r}")


def repeat(first, send):
    """Sends again until an answer repeats the one before it (equal ids), for a while: answers are
    stored in the background, and until then each is a new one. Returns the last two."""
    deadline = time.monotonic() + 20
    while True:
        second = send()
        if second.id == first.id or time.monotonic() > deadline:
            return first, second
        first = second
        time.sleep(0.05)


def run(checks) -> None:
    """Runs every check, says how each went, and exits 1 if one failed."""
    failed = 0
    for check in checks:
        name = check.__name__.replace("_", " ")
        try:
            check()
            print(f"ok      {name}")
        except Exception:  # a failed check must not hide the next
            failed += 1
            print(f"FAILED  {name}")
            traceback.print_exc(file=sys.stdout)
    print(f"{len(checks) - failed} of {len(checks)} checks passed")
    sys.exit(1 if failed else 0)
