"""Pictures of every page of the console, on a vendor's books and on empty ones, light, dark and narrow.

usage: python tests/browser DIR [--role admin] [--only PART] [--each 1]
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from contextlib import AbstractContextManager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support import console, crawl, office

from sealpack.settlement import db


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--role", default="admin", choices=console.USERS)
    parser.add_argument("--only", default="", help="pages whose address has this")
    parser.add_argument("--each", type=int, default=1, help="addresses of one registered path")
    parser.add_argument("--looks", nargs="*", default=["wide"], choices=["wide", "dark", "narrow", "empty"])
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    with console.chromium() as browser:
        for look in args.looks:
            with (
                tempfile.TemporaryDirectory(prefix="sealpack-office-") as books,
                _server(books, look) as server,
            ):
                found = crawl.Visitor(server.url).login(args.role).crawl(max(args.each, 6))
                for address, why in found.broken.items():
                    print("BROKEN", address, why)
                options = {"color_scheme": "dark"} if look == "dark" else {}
                with console.tab(browser, server, **options) as watched:
                    watched.login(args.role)
                    if look == "narrow":
                        watched.page.set_viewport_size(console.NARROW)
                    for addresses in found.pages.values():
                        for address in addresses[: args.each]:
                            if args.only in address:
                                _picture(watched, address, args.folder, look)
                for problem in watched.wrong:
                    print("WRONG", problem)


def _server(books: str, look: str) -> AbstractContextManager[console.Server]:
    folder = Path(books)
    database = db.Database.open(folder / "settlement.db") if look == "empty" else office.make(folder).database
    console.add_users(database, office.NOW - 86_400)
    database.close()
    return console.serving(folder)


def _picture(watched: console.Watched, address: str, folder: Path, look: str) -> None:
    page = watched.go(address)
    name = re.sub(r"[^a-z0-9]+", "-", address.removeprefix("/console/").lower()).strip("-") or "overview"
    page.screenshot(path=folder / f"{look}-{name[:80]}.png", full_page=True)
    print(address)


if __name__ == "__main__":
    main()
