//! A volume of its own: ext4 in a file, mounted. Needs root and a loop device.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use tempfile::TempDir;

use crate::console::note;

/// Unmounted when it is dropped.
pub(crate) struct Volume {
    device: String,
    image: PathBuf,
    mount: PathBuf,
    _folder: TempDir,
}

/// A volume of that size; `None`, with a word about why, where none can be mounted, or none is wanted.
pub(crate) fn mounted_or_not(mib: u64) -> Option<Volume> {
    if mib == 0 {
        return None;
    }
    match Volume::mounted(mib) {
        Ok(volume) => Some(volume),
        Err(error) => {
            note(format_args!("no volume of its own: {error:#}"));
            None
        }
    }
}

impl Volume {
    pub(crate) fn mounted(mib: u64) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let (image, mount) = (folder.path().join("image"), folder.path().join("mount"));
        std::fs::create_dir(&mount)?;
        run("truncate", &["-s", &format!("{mib}M"), text(&image)])?;
        // No blocks for root alone: brokers are not root, and here they may be.
        run("mkfs.ext4", &["-q", "-m", "0", text(&image)])?;
        let device = run("losetup", &["--find", "--show", text(&image)])?.trim().to_owned();
        let volume = Self { device, image, mount, _folder: folder };
        run("mount", &["-t", "ext4", &volume.device, text(&volume.mount)])?;
        Ok(volume)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.mount
    }

    /// Makes it so large, while it is in use.
    pub(crate) fn grow(&self, mib: u64) -> anyhow::Result<()> {
        run("truncate", &["-s", &format!("{mib}M"), text(&self.image)])?;
        run("losetup", &["--set-capacity", &self.device])?;
        run("resize2fs", &[&self.device])?;
        Ok(())
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        for (program, args) in
            [("umount", vec![text(&self.mount)]), ("losetup", vec!["--detach", self.device.as_str()])]
        {
            if let Err(error) = run(program, &args) {
                note(format_args!("{error:#}"));
            }
        }
    }
}

fn run(program: &str, args: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(program).args(args).output().with_context(|| format!("run {program}"))?;
    let words = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} {}: {}", args.join(" "), words.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a temporary folder has a plain name")
}
