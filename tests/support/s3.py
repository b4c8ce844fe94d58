"""An S3 server of this machine (moto), in a process of its own: ``python -m tests.support.s3``."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def s3_server() -> Iterator[str]:
    """Serve S3 on a free port of the loopback device; the URL of its endpoint."""
    command = [sys.executable, "-m", "tests.support.s3"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def _with_one_server_header(app: Callable[..., Any]) -> Callable[..., Any]:
    """The application without its Server header: werkzeug adds its own, and aiohttp refuses two."""

    def filtered(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            return start_response(
                status, [pair for pair in headers if pair[0].lower() not in ("server", "date")], *rest
            )

        return app(environ, start)  # type: ignore[no-any-return]

    return filtered


def main() -> None:
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    app = _with_one_server_header(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, app, threaded=True)
    print(f"http://127.0.0.1:{server.port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
