"""A person's say in what is kept: the doubtful descriptions, templates and drawings, in the browser.

    ltgc review        # writes review.csv at each verdict; Ctrl-C ends it
    dvc repro          # asks and draws only what follows from the verdicts

The page is served on this machine alone (127.0.0.1). review.csv is a file of git: go on tomorrow, or let a
colleague go on.
"""

import socket
import threading
import webbrowser

import uvicorn

from ltgc.commands.review import doubts, page
from ltgc.pipeline.artifacts.review import REVIEW
from ltgc.pipeline.terminal import console


def main(port: int, open_browser: bool) -> None:
    """Serve the page until Ctrl-C. port: 0 takes a free one."""
    app = page.make_app(doubts.read())
    with socket.create_server(("127.0.0.1", port)) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        console.print(f"verdicts go into {REVIEW} at once; end with Ctrl-C, then run `dvc repro`; open {address}")
        if open_browser:
            threading.Timer(0.5, webbrowser.open, [address]).start()
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
        server.run(sockets=[listener])
