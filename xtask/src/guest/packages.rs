//! Debian's packages of a Linux 6.1 and of what its guest needs, unpacked and not installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::command::output;
use super::vmlinux;

/// The kernel's series; Debian 12's.
const SERIES: &str = "6.1";

/// A kernel, and what it takes to build modules for it and to boot it.
#[derive(Debug)]
pub(super) struct Linux {
    /// As `uname -r` says it.
    pub(super) release: String,
    /// Everything below is here.
    pub(super) folder: PathBuf,
}

impl Linux {
    /// The kernel as an ELF file.
    pub(super) fn vmlinux(&self) -> PathBuf {
        self.folder.join("vmlinux")
    }

    pub(super) fn busybox(&self) -> PathBuf {
        self.unpacked().join("bin/busybox")
    }

    /// Where modules are built from.
    pub(super) fn headers(&self) -> PathBuf {
        self.unpacked().join(format!("usr/src/linux-headers-{}", self.release))
    }

    /// The part of the headers that all flavours of the kernel share.
    pub(super) fn common_headers(&self) -> PathBuf {
        self.unpacked().join("usr/src").join(common(&self.release))
    }

    /// Shared libraries that the kernel's build tools are linked with.
    pub(super) fn libraries(&self) -> PathBuf {
        self.unpacked().join("usr/lib/x86_64-linux-gnu")
    }

    fn unpacked(&self) -> PathBuf {
        self.folder.join("unpacked")
    }
}

/// The newest kernel of the series, from the cache in `folder` if it is there; else one that is.
///
/// # Errors
///
/// If it cannot be had: there is none in the package lists, a package cannot be downloaded, or is not as expected.
pub(super) fn fetch(folder: &Path) -> Result<Linux> {
    let attempt = || {
        let release = newest()?;
        let linux = Linux { folder: folder.join(&release), release };
        // Only what is complete has the name.
        if !linux.folder.exists() {
            download(&linux, &folder.join("partial"))?;
        }
        anyhow::Ok(linux)
    };
    let again = |_| {
        // Old lists name packages that are no longer there. Without the right to renew them, this is just a second try.
        let _ = output(Command::new("apt-get").arg("update"));
        attempt()
    };
    attempt().or_else(again).or_else(|error| cached(folder).ok_or(error))
}

/// One that was fetched before, whatever the package lists name now.
fn cached(folder: &Path) -> Option<Linux> {
    let names = fs::read_dir(folder).ok()?.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let release = names.filter(|name| is_of_series(name)).max()?;
    Some(Linux { folder: folder.join(&release), release })
}

fn newest() -> Result<String> {
    let text = output(Command::new("apt-cache").args(["depends", "linux-image-amd64"]))?;
    let named = || format!("no Linux {SERIES} in the package lists (Debian 12's linux-image-amd64 brings one)");
    release_in(&String::from_utf8_lossy(&text)).with_context(named)
}

/// The release in the answer to `apt-cache depends linux-image-amd64`.
fn release_in(depends: &str) -> Option<String> {
    let mut packages = depends.lines().filter_map(|line| line.trim().strip_prefix("Depends: linux-image-"));
    packages.find(|release| is_of_series(release)).map(str::to_owned)
}

fn is_of_series(release: &str) -> bool {
    release.strip_prefix(SERIES).is_some_and(|rest| rest.starts_with('.'))
}

/// `linux-headers-6.1.0-1-common` for `6.1.0-1-amd64`.
fn common(release: &str) -> String {
    format!("linux-headers-{}-common", release.trim_end_matches("-amd64"))
}

fn names(release: &str) -> [String; 6] {
    [
        format!("linux-image-{release}"),
        format!("linux-headers-{release}"),
        common(release),
        format!("linux-kbuild-{SERIES}"),
        "busybox-static".to_owned(),
        // objtool, which checks every object of a module, is linked with it.
        "libelf1".to_owned(),
    ]
}

/// Fills `partial` and gives it the name of the complete folder.
fn download(linux: &Linux, partial: &Path) -> Result<()> {
    if partial.exists() {
        fs::remove_dir_all(partial).with_context(|| partial.display().to_string())?;
    }
    let packages = partial.join("packages");
    fs::create_dir_all(&packages).with_context(|| packages.display().to_string())?;
    eprintln!("guest: downloading Linux {}, about 90 MB", linux.release);
    // apt's own user, which it would download as, may not write here.
    let mut apt = Command::new("apt-get");
    apt.args(["-o", "APT::Sandbox::User=root", "download"]).args(names(&linux.release)).current_dir(&packages);
    output(&mut apt)?;
    let unpacking = Linux { release: linux.release.clone(), folder: partial.to_owned() };
    unpack(&unpacking, &packages)?;
    fs::rename(partial, &linux.folder).with_context(|| linux.folder.display().to_string())
}

fn unpack(linux: &Linux, packages: &Path) -> Result<()> {
    fs::create_dir_all(linux.unpacked()).with_context(|| linux.unpacked().display().to_string())?;
    for entry in fs::read_dir(packages).with_context(|| packages.display().to_string())? {
        let path = entry?.path();
        if !is_image(&path) {
            output(Command::new("dpkg-deb").arg("-x").arg(&path).arg(linux.unpacked()))?;
            continue;
        }
        // Without its 400 MB of modules.
        let only = "dpkg-deb --fsys-tarfile \"$0\" | tar -x -C \"$1\" --wildcards './boot/vmlinuz-*'";
        output(Command::new("sh").args(["-c", only]).arg(&path).arg(linux.unpacked()))?;
    }
    for needed in [linux.busybox(), linux.headers(), linux.common_headers(), linux.libraries()] {
        if !needed.exists() {
            bail!("the packages of Linux {} hold no {}", linux.release, needed.display());
        }
    }
    let image = linux.unpacked().join(format!("boot/vmlinuz-{}", linux.release));
    vmlinux::extract(&image, &linux.vmlinux())?;
    for done in [packages, &linux.unpacked().join("boot")] {
        fs::remove_dir_all(done).with_context(|| done.display().to_string())?;
    }
    Ok(())
}

fn is_image(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("linux-image-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_release_is_what_the_metapackage_depends_on() {
        let text =
            "linux-image-amd64\n  Depends: linux-image-6.1.0-56-amd64\n  Conflicts: <linux-image-amd64-signed>\n";
        assert_eq!(release_in(text).as_deref(), Some("6.1.0-56-amd64"));
    }

    #[test]
    fn a_kernel_of_another_series_is_not_taken() {
        assert_eq!(release_in("linux-image-amd64\n  Depends: linux-image-6.12.9-amd64\n"), None);
        assert_eq!(release_in(""), None);
    }

    #[test]
    fn without_a_network_what_was_fetched_before_is_used() {
        let folder = std::env::temp_dir().join(format!("xtask-guest-{}", std::process::id()));
        assert!(cached(&folder).is_none());
        for name in ["6.1.0-55-amd64", "6.1.0-56-amd64", "6.12.9-amd64", "partial"] {
            fs::create_dir_all(folder.join(name)).unwrap();
        }
        let linux = cached(&folder);
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(linux.unwrap().release, "6.1.0-56-amd64");
    }

    #[test]
    fn the_common_headers_are_named_without_the_flavour() {
        assert_eq!(common("6.1.0-56-amd64"), "linux-headers-6.1.0-56-common");
    }

    #[test]
    fn only_the_kernel_itself_is_an_image() {
        assert!(is_image(Path::new("a/linux-image-6.1.0-56-amd64_6.1.192-2_amd64.deb")));
        assert!(!is_image(Path::new("linux-image-x/linux-kbuild-6.1_6.1.192-2_amd64.deb")));
    }
}
