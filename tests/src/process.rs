//! A child process that ends with its owner and whose log is shown when a test fails.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

/// A running child process.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

/// Longest start of anything: Envoy compiles the filter on two busy cores.
pub const START: Duration = Duration::from_secs(90);

/// Time between two looks at something that tells no event.
const LOOK: Duration = Duration::from_millis(20);

impl Process {
    /// Starts `command`; what it writes goes to `DIR/NAME.log`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(name: &str, command: &mut Command, dir: &Path) -> anyhow::Result<Process> {
        let log = dir.join(format!("{name}.log"));
        let file = File::create(&log).with_context(|| format!("making {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("starting {name} ({:?})", command.get_program()))?;
        Ok(Process {
            name: name.to_owned(),
            child,
            log,
        })
    }

    /// Everything that it wrote so far.
    #[must_use]
    pub fn log(&self) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// How it ended, if it did.
    ///
    /// # Errors
    /// When the system cannot tell.
    pub fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Waits until `ready` says so; fails when the process ends before or [`START`] passes.
    ///
    /// # Errors
    /// Then, with the end of its log.
    pub async fn until<T>(
        &mut self,
        mut ready: impl AsyncFnMut(&mut Process) -> Option<T>,
    ) -> anyhow::Result<T> {
        let deadline = Instant::now() + START;
        loop {
            if let Some(ready) = ready(self).await {
                return Ok(ready);
            }
            if let Some(status) = self.ended()? {
                bail!(
                    "{} ended at its start: {status}\n{}",
                    self.name,
                    self.tail()
                );
            }
            if Instant::now() > deadline {
                bail!(
                    "{} was not ready after {START:?}\n{}",
                    self.name,
                    self.tail()
                );
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Kills it as a power cut would (SIGKILL) and waits for its end.
    pub fn kill(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Sends it a signal, by its name without SIG.
    ///
    /// # Errors
    /// When it is gone.
    pub fn signal(&self, name: &str) -> anyhow::Result<()> {
        let id = self.id().to_string();
        let status = Command::new("kill").args(["-s", name, &id]).status()?;
        anyhow::ensure!(status.success(), "{}: no process {id}", self.name);
        Ok(())
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    fn tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let from = lines.len().saturating_sub(60);
        format!(
            "--- end of {}'s log\n{}\n---",
            self.name,
            lines[from..].join("\n")
        )
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("{}", self.tail());
        }
    }
}

/// Looks at something that tells no event until it is there or `deadline` has passed; then the
/// last look is the error.
///
/// # Errors
/// When it is not there in time.
pub async fn eventually<T>(
    deadline: Duration,
    mut look: impl AsyncFnMut() -> Result<T, String>,
) -> anyhow::Result<T> {
    let end = Instant::now() + deadline;
    loop {
        match look().await {
            Ok(found) => return Ok(found),
            Err(found) if Instant::now() > end => {
                bail!("not within {deadline:?}: {found}");
            }
            Err(_) => tokio::time::sleep(LOOK).await,
        }
    }
}
