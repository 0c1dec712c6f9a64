//! A container engine, for the compose example; where none answers, that example is not run.

use std::fmt;
use std::process::Command;

use crate::run;

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Docker {
    /// An engine answers and `docker compose` is there.
    V2,
    /// An engine answers and `docker-compose` is there.
    V1,
    /// An engine answers, without Compose.
    NoCompose,
    /// No engine answers.
    None,
}

/// Looks for the engine and for Compose.
pub(crate) fn found() -> Docker {
    let works = |program: &str, args: &[&str]| {
        run::read(Command::new("timeout").args(["20", program]).args(args)).is_ok()
    };
    // `docker info` succeeds without an engine; the server's version does not.
    if !works("docker", &["version", "--format", "{{.Server.Version}}"]) {
        Docker::None
    } else if works("docker", &["compose", "version"]) {
        Docker::V2
    } else if works("docker-compose", &["version"]) {
        Docker::V1
    } else {
        Docker::NoCompose
    }
}

impl fmt::Display for Docker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Docker::V2 => "engine with docker compose",
            Docker::V1 => "engine with docker-compose",
            Docker::NoCompose => "engine without Compose: the compose example is not run",
            Docker::None => "no engine: the compose example is not run",
        })
    }
}
