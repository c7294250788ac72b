"""A small volume, so that a scenario can fill it: a tmpfs, which takes root."""

import os
import subprocess


class Volume:
    """Mounted while it is entered; of 0 MiB it is just the folder."""

    def __init__(self, path, mib):
        self.path = path
        self.mib = mib

    def __enter__(self):
        self.path.mkdir()
        if self.mib:
            if os.geteuid():
                raise PermissionError("a scenario with volume_mib mounts a tmpfs, which takes root")
            options = f"size={self.mib}m,mode=0700"
            subprocess.run(["mount", "-t", "tmpfs", "-o", options, "ackwell-conformance", self.path], check=True)
        return self

    def __exit__(self, *_):
        if self.mib:
            subprocess.run(["umount", "--lazy", self.path], check=True)

    def fill(self):
        """Takes all room but that which the brokers have taken already."""
        taken = os.statvfs(self.path)
        with open(self.path / "filler", "wb") as filler:
            os.posix_fallocate(filler.fileno(), 0, taken.f_bavail * taken.f_frsize)

    def free(self):
        """Gives it back."""
        (self.path / "filler").unlink()
