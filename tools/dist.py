"""Build the wheel and the source distribution in dist/, check both, and train two steps with the wheel alone (`make dist`).

The new environment takes the packages that the wheel requires from this one; with --download it downloads them again.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from email.parser import Parser
from pathlib import Path

from ddptrain.version import __version__

ROOT = Path(__file__).resolve().parents[1]
DIST = ROOT / "dist"
RUN = """
classes: [car, bus, pedestrian]
data:
  train: [{name: skyview, format: visdrone, root: demo, split: train, drop: ["*"]}]
  val: [{name: skyview, format: visdrone, root: demo, split: val, drop: ["*"]}]
  image_size: 64
  workers: 0
train: {steps: 2, global_batch: 4, micro_batch: 4, device: cpu}
monitor: {tensorboard: false}
"""


def main() -> None:
    """Build, check, try; any failure ends it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--download", action="store_true", help="download the requirements again from the package index (6 GB)")
    download = parser.parse_args().download
    shutil.rmtree(DIST, ignore_errors=True)
    run(sys.executable, "-m", "build", "--outdir", str(DIST), str(ROOT))
    (wheel,), (source,) = DIST.glob("*.whl"), DIST.glob("*.tar.gz")
    run(sys.executable, "-m", "twine", "check", "--strict", str(wheel), str(source))
    check(wheel, source)
    with tempfile.TemporaryDirectory() as place:
        try_alone(wheel, Path(place), download)
    print(f"{wheel.name} ({wheel.stat().st_size / 1e6:.2f} MB) and {source.name} are ready: twine upload dist/*")


def check(wheel: Path, source: Path) -> None:
    """What the archives hold, and what the wheel says of itself."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = Parser().parsestr(archive.read(f"ddptrain-{__version__}.dist-info/METADATA").decode())
    tops = {name.split("/")[0] for name in names}
    expect(tops == {"ddptrain", "launch", f"ddptrain-{__version__}.dist-info"}, f"the wheel holds {sorted(tops)}")
    expect(any(name.endswith("licenses/LICENSE") for name in names), "the wheel has no licence")
    expect(metadata["Version"] == __version__, f"the wheel has version {metadata['Version']}, the package {__version__}")
    expect("A run is a function" in str(metadata.get_payload()), "the long description is not the README")
    with tarfile.open(source) as archive:
        inside = {name.split("/")[1] for name in archive.getnames() if "/" in name}
    lacking = {"README.md", "LICENSE", "Makefile", "mkdocs.yml", "configs", "docs", "tests"} - inside
    expect(not lacking, f"the source distribution lacks {sorted(lacking)}")


def try_alone(wheel: Path, place: Path, download: bool) -> None:
    """Install the wheel in a new environment and train two steps with it, away from the repository."""
    venv.create(place / "env", with_pip=True)
    python = str(place / "env" / "bin" / "python")
    if not download:
        (own,) = (place / "env" / "lib").glob("python*/site-packages")
        # paths in a .pth file are searched behind the environment's own, and their own .pth files are not read
        (own / "requirements.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
    run(
        python,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        *([] if download else ["--no-deps"]),
        str(wheel),
    )
    where = run(python, "-c", "import ddptrain; print(ddptrain.__file__)", cwd=place, out=True)
    expect(where.startswith(str(place)), f"the package that is imported is {where.strip()}")
    (place / "run.yaml").write_text(RUN)
    run(python, "-m", "ddptrain.data.synthetic", "data", "--images", "24", cwd=place)
    (place / "data" / "skyview").rename(place / "demo")
    run(str(place / "env" / "bin" / "ddptrain"), "train", "run.yaml", cwd=place)
    expect((place / "runs" / "run" / "checkpoints" / "last.pt").exists(), "the run left no checkpoint")


def run(*command: str, cwd: Path | None = None, out: bool = False) -> str:
    """Run a command; where it fails, so does this one."""
    done = subprocess.run(command, cwd=cwd, text=True, stdout=subprocess.PIPE if out else None, check=False)
    expect(done.returncode == 0, f"{' '.join(command)} ended with status {done.returncode}")
    return done.stdout or ""


def expect(true: bool, otherwise: str) -> None:
    if not true:
        sys.exit(f"make dist: {otherwise}")


if __name__ == "__main__":
    main()
