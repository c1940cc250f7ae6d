"""Pictures of all templates in both looks of ComfyUI's nodes, for people to look at.

usage: python tests/host/shots.py FOLDER [ComfyUI's own options, such as --front-end-root for another frontend]

COMFYUI_PATH names another ComfyUI. What lies over the graph (toasts and dialogs) is left out. Frontends before 1.41
had only the beginnings of Nodes 2.0.
"""

import argparse
import json
import sys
from pathlib import Path

import browser
import comfy_install
import desk
import layout
from comfy_install import ROOT, HostError
from comfy_server import PACK, ComfyServer

OVER_THE_GRAPH = ".p-toast, .p-dialog-mask, [role=dialog], [data-testid=toast], [role=alert] { visibility: hidden }"


def take(server: ComfyServer, folder: Path) -> None:
    with browser.launched(browser.find()) as chromium:
        page = browser.open_page(chromium, server.url, [])
        page.set_viewport_size(desk.SIZE)
        page.evaluate("app.ui.settings.setSettingValueAsync('Comfy.Minimap.Visible', false)")
        for look in layout.LOOKS:
            for file in sorted((ROOT / "workflows").glob("*.json")):
                layout.shown(page, json.loads(file.read_text("utf-8")), look, all_inputs=False)
                page.evaluate(desk.STILL)
                page.add_style_tag(content=OVER_THE_GRAPH)
                page.screenshot(path=folder / f"{look}-{file.stem}.png")
                print(folder / f"{look}-{file.stem}.png")


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="tests/host/shots.py", usage="%(prog)s FOLDER [ComfyUI's options]")
    parser.add_argument("folder", type=Path)
    own, others = parser.parse_known_args(argv)
    own.folder.mkdir(parents=True, exist_ok=True)
    try:
        with ComfyServer(comfy_install.find(), PACK, arguments=others) as server:
            take(server, own.folder)
    except HostError as problem:
        print(problem, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
