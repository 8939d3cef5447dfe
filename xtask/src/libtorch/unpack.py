"""Takes from wheels what programs are built and run with: `unpack.py WHEELS TARGET LIBRARY...`.

Headers lie below `torch/include`; libraries are taken by their names, wherever they lie.
"""

import pathlib
import shutil
import sys
import zipfile

HEADERS = "torch/include/"


def place(name, libraries):
    """Where a file of a wheel belongs, if anywhere."""
    if name.startswith(HEADERS) and not name.endswith("/"):
        return "include/" + name.removeprefix(HEADERS)
    file = name.rpartition("/")[2]
    if file in libraries:
        libraries.remove(file)
        return "lib/" + file
    return None


def main():
    wheels, target, libraries = sys.argv[1], pathlib.Path(sys.argv[2]), set(sys.argv[3:])
    for path in sorted(pathlib.Path(wheels).glob("*.whl")):
        with zipfile.ZipFile(path) as wheel:
            for name in wheel.namelist():
                wanted = place(name, libraries)
                if wanted is not None:
                    file = target / wanted
                    file.parent.mkdir(parents=True, exist_ok=True)
                    with wheel.open(name) as source, file.open("wb") as copy:
                        shutil.copyfileobj(source, copy, 1 << 20)
    if libraries:
        sys.exit(f"the wheels have no {', '.join(sorted(libraries))}")


main()
