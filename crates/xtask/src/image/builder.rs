//! Building one image and writing it as an OCI archive, with buildah or Docker: whichever works here.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::child;

/// An image to build.
pub(super) struct Image<'a> {
    /// The Containerfile.
    pub(super) file: &'a Path,
    /// The folder it copies from.
    pub(super) context: &'a Path,
    /// The stage to build; absent: the last.
    pub(super) stage: Option<&'a str>,
    /// With repository and tag.
    pub(super) name: String,
    /// Where the OCI archive goes.
    pub(super) archive: &'a Path,
}

/// A tool that builds images.
pub(super) enum Builder {
    /// Needs no service. Its store is a folder of ours, removed at the end: only the archives stay.
    Buildah { store: PathBuf },
    /// With its service running; the images stay in it, too.
    Docker,
}

impl Builder {
    pub(super) fn find() -> anyhow::Result<Self> {
        if child::find("buildah").is_some() {
            let store = std::env::temp_dir().join(format!("ackwell-images-{}", std::process::id()));
            return Ok(Self::Buildah { store });
        }
        if child::succeeds(&mut child::command("docker", ["info"])) {
            return Ok(Self::Docker);
        }
        bail!("building images needs buildah (Debian package buildah) or a running Docker");
    }

    pub(super) fn build(&self, image: &Image<'_>) -> anyhow::Result<()> {
        child::run(&mut self.build_command(image))?;
        if image.archive.exists() {
            std::fs::remove_file(image.archive)
                .with_context(|| format!("remove {}", image.archive.display()))?;
        }
        child::run(&mut self.save_command(image))
    }

    fn build_command(&self, image: &Image<'_>) -> Command {
        let mut command = match self {
            // No isolation but a changed root: it works inside containers and sandboxes, and nothing is run anyway.
            // One fixed time: equal content makes equal images.
            Self::Buildah { .. } => self.buildah(["build", "--quiet", "--isolation=chroot", "--timestamp=0"]),
            Self::Docker => child::command("docker", ["build", "--quiet"]),
        };
        command.stdout(std::process::Stdio::null());
        command.args(image.stage.iter().flat_map(|stage| ["--target", stage]));
        command.args(["--tag", &image.name, "--file"]).arg(image.file).arg(image.context);
        command
    }

    fn save_command(&self, image: &Image<'_>) -> Command {
        match self {
            Self::Buildah { .. } => {
                let mut command = self.buildah(["push", "--quiet", &image.name]);
                command.arg(format!("oci-archive:{}:{}", image.archive.display(), image.name));
                command
            }
            Self::Docker => {
                let mut command = child::command("docker", ["save", &image.name, "--output"]);
                command.arg(image.archive);
                command
            }
        }
    }

    fn buildah<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Command {
        // vfs copies whole layers instead of mounting them: it works where mounting an overlay does not.
        let mut command = child::command("buildah", ["--storage-driver=vfs"]);
        if let Self::Buildah { store } = self {
            command.arg("--root").arg(store.join("store")).arg("--runroot").arg(store.join("run"));
        }
        command.args(args);
        command
    }
}

impl Drop for Builder {
    fn drop(&mut self) {
        if let Self::Buildah { store } = self {
            // What is left of it is only disk space.
            let _ = std::fs::remove_dir_all(store);
        }
    }
}
