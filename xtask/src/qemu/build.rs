//! The kernel's files: the image and the RAM disk.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail};

use super::{Modules, disk, symbols};
use crate::shell::{cargo, root};
use crate::{bench, setup};

/// The kernel's package; a workspace of its own.
const FOLDER: &str = "apps/demo-kernel";
const TARGET: &str = "x86_64-unknown-none";
const NAME: &str = "demo-kernel";

/// The kernel as it was built, with its RAM disk.
#[derive(Debug)]
pub(crate) struct Kernel {
    image: PathBuf,
    disk: PathBuf,
}

impl Kernel {
    /// Builds it and its modules, after installing what is missing for that.
    ///
    /// # Errors
    ///
    /// If the target or QEMU cannot be had, or the kernel or a module does not compile.
    pub(crate) fn build(modules: &Modules) -> Result<Self> {
        setup::for_kernel().map_err(|missing| anyhow!("{missing}"))?;
        // Beside the workspace's own results: the kernel's folder stays as it was checked out.
        let target = bench::target_directory()?.join(NAME);
        compile(&target)?;
        let image = target.join(TARGET).join("release").join(NAME);
        let disk = target.join("disk.tar");
        let bytes = std::fs::read(&image).with_context(|| format!("cannot read {}", image.display()))?;
        let table = symbols::table(&bytes).context("the kernel's symbol table")?;
        let modules = modules.files(&target)?;
        let mut made = vec![("boot/symbols", table.as_bytes())];
        made.extend(modules.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())));
        let archive = disk::archive(&root().join(FOLDER).join("disk"), &made)?;
        replace(&disk, &archive)?;
        Ok(Self { image, disk })
    }

    /// The ELF file.
    pub(crate) fn image(&self) -> &Path {
        &self.image
    }

    /// The RAM disk, an archive.
    pub(crate) fn disk(&self) -> &Path {
        &self.disk
    }
}

/// As a contributor would, in the kernel's folder, whose `.cargo/config.toml` has the flags.
fn compile(target: &Path) -> Result<()> {
    let mut command = Command::new(cargo());
    command.args(["build", "--release", "--quiet"]).current_dir(root().join(FOLDER)).env("CARGO_TARGET_DIR", target);
    // Flags and a target that are set for what runs here are not meant for the kernel, and would go before its own.
    for variable in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_TARGET", "CARGO_BUILD_RUSTFLAGS"] {
        command.env_remove(variable);
    }
    let status = command.status().context("cannot start cargo")?;
    if !status.success() {
        bail!("the demo kernel does not build: {status}");
    }
    Ok(())
}

/// Two runs at once must not see half a file.
fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let fresh = path.with_extension(format!("{}.new", std::process::id()));
    std::fs::write(&fresh, bytes)
        .and_then(|()| std::fs::rename(&fresh, path))
        .with_context(|| format!("cannot write {}", path.display()))
}
