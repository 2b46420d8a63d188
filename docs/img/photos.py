"""Draw docs/img/photos*.png, the pictures of the tutorial on photos: `python docs/img/photos.py`.

Drawn scenes take the place of photos. Chromium takes pictures of the gallery.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from wsss.demo.scenes import render_scene

ROOT = Path(__file__).parents[2]
SCENES, SEED = 24, 3
CLIP = "${WSSS_PACKAGE}/demo/weights/demo-vit-p8"


def main() -> None:
    """Draw photos, run `wsss photos` on them, take pictures of the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "docs/img")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw(folder / "photos")
        (folder / "small.yaml").write_text(
            "clip: {long_side: null}\nmasks: {background: {value: 2}}"
        )
        subprocess.run(
            [sys.executable, "-m", "wsss", "photos", "photos", "--config", "small.yaml", "--clip",
             f"{CLIP}.json", "--weights", f"{CLIP}.safetensors"],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            check=True,
        )  # fmt: skip
        take_pictures(folder / "photos-masks/index.html", options.out)


def draw(folder: Path) -> None:
    """Scenes with their tags, one of them with a tag that it does not show."""
    rows = ["image,tags"]
    for index in range(SCENES):
        scene = render_scene(SEED, "train", index)
        file = folder / ("garden", "street")[index % 2] / f"photo {index:02d}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(scene.image).save(file, quality=92)
        tags = [*scene.tags, *(["umbrella"] if index == 5 and "umbrella" not in scene.tags else [])]
        rows.append(f"{file.relative_to(folder)},{';'.join(tags)}")
    (folder / "tags.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")


def take_pictures(page_file: Path, out: Path) -> None:
    """The whole gallery, and one photo of it."""
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next(filter(None, map(shutil.which, names)))
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1200, "height": 760})
        page.goto(page_file.as_uri())
        page.wait_for_timeout(500)
        page.screenshot(path=out / "photos.png")
        page.locator(".card").first.click()
        page.wait_for_timeout(500)
        page.screenshot(path=out / "photos-one.png")
        browser.close()


if __name__ == "__main__":
    main()
