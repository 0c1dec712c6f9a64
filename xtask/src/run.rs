//! Where things are, and how commands are run: every other module starts its processes here.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// The folders that chores work in.
#[derive(Clone, Debug)]
pub(crate) struct Workspace {
    /// The repository.
    pub(crate) root: PathBuf,
    /// Where cargo builds.
    pub(crate) target: PathBuf,
    /// Where installed tools are found: `target/tools`.
    pub(crate) tools: PathBuf,
    /// What is shipped: `target/dist`.
    pub(crate) dist: PathBuf,
    /// Where built tools outlive a clone: `~/.cache/sluice`, else [`Workspace::tools`].
    pub(crate) cache: PathBuf,
}

impl Workspace {
    pub(crate) fn find() -> Result<Self> {
        // Cargo says where this clone is. What was compiled in may be another one's folder, where
        // several share a target directory.
        let own = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
        let own = own.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")));
        let root = own
            .parent()
            .context("xtask has no parent folder")?
            .to_path_buf();
        let build = root.join("target");
        let target =
            std::env::var_os("CARGO_TARGET_DIR").map_or(build.clone(), |dir| root.join(dir));
        let tools = build.join("tools");
        fs::create_dir_all(&tools).with_context(|| format!("making {}", tools.display()))?;
        let cache = cache_dir().filter(|dir| fs::create_dir_all(dir).is_ok());
        Ok(Workspace {
            target,
            dist: build.join("dist"),
            cache: cache.unwrap_or_else(|| tools.clone()),
            tools,
            root,
        })
    }

    /// A command in the repository's root that finds `target/tools` first on its PATH.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(&self.root)
            .env("PATH", path_with(&self.tools));
        command
    }

    /// The cargo that runs this program.
    pub(crate) fn cargo(&self) -> Command {
        self.command(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
    }

    /// The path of `file` for messages: without the part before the repository.
    pub(crate) fn shown(&self, file: &Path) -> String {
        let short = file.strip_prefix(&self.root).unwrap_or(file);
        short.display().to_string()
    }
}

fn cache_dir() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    set("SLUICE_CACHE")
        .map(PathBuf::from)
        .or_else(|| set("XDG_CACHE_HOME").map(|dir| PathBuf::from(dir).join("sluice")))
        .or_else(|| set("HOME").map(|dir| PathBuf::from(dir).join(".cache/sluice")))
}

/// The PATH with `dir` in front.
pub(crate) fn path_with(dir: &Path) -> OsString {
    let rest = std::env::var_os("PATH").unwrap_or_default();
    let all = std::iter::once(dir.to_path_buf()).chain(std::env::split_paths(&rest));
    // A folder with a colon in its name cannot stand in a PATH.
    std::env::join_paths(all).unwrap_or(rest)
}

/// An executable of that name in `dirs` first, then on the PATH.
pub(crate) fn which(name: &str, dirs: &[&Path]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    dirs.iter()
        .map(|dir| dir.to_path_buf())
        .chain(std::env::split_paths(&path))
        .map(|dir| dir.join(name))
        .find(|file| is_executable(file))
}

/// Whether `file` is a file that may be run.
pub(crate) fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    fs::metadata(file).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Runs a command with its output on screen.
pub(crate) fn show(command: &mut Command) -> Result<()> {
    let line = line_of(command);
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("starting {line}"))?;
    if !status.success() {
        bail!("{line}: {status}");
    }
    Ok(())
}

/// Runs a command and returns what it wrote to stdout; its stderr is part of the error only.
pub(crate) fn read(command: &mut Command) -> Result<String> {
    let line = line_of(command);
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("starting {line}"))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("{line}: {}\n{}", output.status, tail(&stderr, 20));
    }
    String::from_utf8(output.stdout).with_context(|| format!("{line} wrote no UTF-8"))
}

/// Runs a command with its output in `log`; the end of it is shown when the command fails.
pub(crate) fn quiet(command: &mut Command, log: &Path) -> Result<()> {
    let line = line_of(command);
    let file = File::create(log).with_context(|| format!("making {}", log.display()))?;
    let status = command
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .status()
        .with_context(|| format!("starting {line}"))?;
    if !status.success() {
        let text = fs::read(log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        bail!(
            "{line}: {status}\n{}\nall of it: {}",
            tail(&text, 30),
            log.display()
        );
    }
    Ok(())
}

fn line_of(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(OsStr::to_string_lossy)
        .collect::<Vec<_>>()
        .join(" ")
}

fn tail(text: &str, lines: usize) -> String {
    let all: Vec<_> = text.trim_end().lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_command_is_named_with_the_end_of_what_it_said() {
        let mut command = Command::new("sh");
        command.args(["-c", "seq 1 100 >&2; exit 3"]);
        let error = read(&mut command).unwrap_err().to_string();
        assert!(error.starts_with("sh -c"), "{error}");
        assert!(error.ends_with("\n99\n100"), "{error}");
        assert!(!error.contains("\n80\n"), "{error}");
    }

    #[test]
    fn a_command_finds_the_tools_folder_first() {
        let workspace = Workspace::find().unwrap();
        let seen = read(workspace.command("sh").args(["-c", "echo $PATH"])).unwrap();
        assert!(
            seen.starts_with(workspace.tools.to_str().unwrap()),
            "{seen}"
        );
    }

    #[test]
    fn a_folder_is_not_an_executable() {
        assert!(!is_executable(Path::new("/")));
        assert!(which("sh", &[]).is_some());
        assert!(which("no-such-program-anywhere", &[]).is_none());
    }
}
