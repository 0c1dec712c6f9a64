//! The compose example as a user starts it: images are built, a request goes through, all is torn
//! down again.
//!
//! Where no registry can be reached, its base images are made from Debian packages under the same
//! tags, and removed afterwards. Without an engine there is nothing to test, and the test says so.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

const SIDECAR_BASE: &str = "debian:trixie-slim";
const ENVOY_BASE: &str = "envoyproxy/envoy:v1.40.0";

/// What a slim image consists of, as far as the example needs it: a shell, its tools, the C library.
const PACKAGES: &[&str] = &[
    "base-files",
    "base-passwd",
    "bash",
    "ca-certificates",
    "coreutils",
    "dash",
    "libacl1",
    "libattr1",
    "libc6",
    "libgcc-s1",
    "libgmp10",
    "libpcre2-8-0",
    "libselinux1",
    "libssl3",
    "libtinfo6",
];

/// From `up` to the first answer, images already built.
const START: Duration = Duration::from_secs(90);

#[test]
fn a_request_through_the_compose_example_is_routed_answered_and_then_cached() -> Result<()> {
    let Some(compose) = compose_program() else {
        eprintln!("SKIPPED: no container engine with Compose answers");
        return Ok(());
    };
    for file in ["sluice", "sluice-filter.wasm", "sluice-provider"] {
        let path = root().join("target/dist").join(file);
        ensure!(
            path.is_file(),
            "{} is missing; cargo xtask dist --examples",
            path.display()
        );
    }
    let mut stack = Stack {
        compose,
        images: Vec::new(),
    };
    for base in [SIDECAR_BASE, ENVOY_BASE] {
        stack.provide(base)?;
    }
    run(stack.compose_command(&["build", "--quiet"]))?;
    run(stack.compose_command(&["up", "--detach"])).with_context(|| stack.logs())?;
    stack.every_container_is_confined()?;

    let address = stack.address()?;
    let body = json!({
        "model": "gpt-4o",
        "temperature": 0,
        "messages": [{"role": "user", "content": "What is the capital of France?"}],
    });
    let first = stack.first_answer(address, &body)?;
    assert_eq!(first.status, 200, "{first:?}");
    let answer: Value = serde_json::from_str(&first.body)?;
    let text = answer["choices"][0]["message"]["content"].as_str();
    assert!(text.is_some_and(|text| !text.is_empty()), "{first:?}");
    // A short question is for the small tier, whatever the client asked for.
    assert_eq!(first.header("x-sluice-tier"), Some("small"), "{first:?}");
    assert_eq!(
        first.header("x-sluice-model"),
        Some("gpt-4o-mini"),
        "{first:?}"
    );
    assert_eq!(first.header("x-sluice-cache"), Some("miss"), "{first:?}");

    // The answer is stored behind the client's back; soon it serves the same question.
    let deadline = Instant::now() + Duration::from_secs(20);
    let again = loop {
        let again = post(address, &body)?;
        if again.header("x-sluice-cache") == Some("hit") || Instant::now() > deadline {
            break again;
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    assert_eq!(again.header("x-sluice-cache"), Some("hit"), "{again:?}");
    let again: Value = serde_json::from_str(&again.body)?;
    assert_eq!(
        again["choices"][0]["message"],
        answer["choices"][0]["message"]
    );
    Ok(())
}

/// The words that start Compose: `SLUICE_COMPOSE`, where it is set; else what answers.
fn compose_program() -> Option<Vec<String>> {
    let words = |text: &str| {
        text.split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    if let Ok(told) = std::env::var("SLUICE_COMPOSE") {
        return Some(words(&told)).filter(|words| !words.is_empty());
    }
    let works = |line: &str| {
        let line = words(line);
        run(command(&line[0]).args(&line[1..])).is_ok()
    };
    if !works("docker version --format {{.Server.Version}}") {
        return None;
    }
    ["docker compose", "docker-compose"]
        .into_iter()
        .find(|program| works(&format!("{program} version")))
        .map(words)
}

/// The running example. What it made is removed at its end.
struct Stack {
    compose: Vec<String>,
    /// Stand-ins of base images.
    images: Vec<&'static str>,
}

impl Stack {
    fn project() -> String {
        format!("sluice-e2e-{}", std::process::id())
    }

    fn compose_command(&self, args: &[&str]) -> Command {
        let mut command = command(&self.compose[0]);
        command
            .args(&self.compose[1..])
            .arg("--file")
            .arg(root().join("examples/docker-compose.yaml"))
            .args(["--project-name", &Self::project()])
            .args(args)
            .env("SLUICE_SECRET", "the-e2e-test-s-own")
            .env("SLUICE_PORT", "0");
        command
    }

    /// The image is there, can be pulled, or is made here.
    fn provide(&mut self, image: &'static str) -> Result<()> {
        if run(command("docker").args(["image", "inspect", image])).is_ok() {
            return Ok(());
        }
        if run(command("timeout").args(["300", "docker", "pull", "--quiet", image])).is_ok() {
            return Ok(());
        }
        eprintln!("no registry gives {image}; made from Debian packages instead");
        self.images.push(image);
        make_image(image)
    }

    /// Where Envoy's port was published.
    fn address(&self) -> Result<SocketAddr> {
        let output = run(self.compose_command(&["port", "envoy", "10000"]))?;
        let text = String::from_utf8(output.stdout)?;
        text.trim()
            .parse()
            .with_context(|| format!("compose port said '{text}'"))
    }

    /// Asks until Envoy listens.
    fn first_answer(&self, address: SocketAddr, body: &Value) -> Result<Answer> {
        let deadline = Instant::now() + START;
        loop {
            match post(address, body) {
                Ok(answer) => return Ok(answer),
                Err(error) if Instant::now() > deadline => return Err(error.context(self.logs())),
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    }

    /// What the containers said, for a failure.
    fn logs(&self) -> String {
        match run(self.compose_command(&["logs", "--no-color", "--tail=40"])) {
            Ok(output) => String::from_utf8_lossy(&output.stdout).into_owned(),
            Err(error) => format!("no logs: {error:#}"),
        }
    }

    /// Nobody is root, no root is writable, and only Envoy can be reached from outside.
    fn every_container_is_confined(&self) -> Result<()> {
        let ids = String::from_utf8(run(self.compose_command(&["ps", "--quiet"]))?.stdout)?;
        let ids: Vec<_> = ids.lines().collect();
        ensure!(ids.len() == 3, "three containers, found {ids:?}");
        let list = run(command("docker").arg("inspect").args(&ids))?;
        let list: Vec<Value> = serde_json::from_slice(&list.stdout)?;
        let mut published = Vec::new();
        for container in &list {
            let name = container["Config"]["Labels"]["com.docker.compose.service"].as_str();
            let name = name.context("a container without its service's name")?;
            assert_eq!(container["Config"]["User"], "65532:65532", "{name}");
            let host = &container["HostConfig"];
            assert_eq!(host["ReadonlyRootfs"], true, "{name}");
            assert_eq!(host["CapDrop"], json!(["ALL"]), "{name}");
            if host["PortBindings"]
                .as_object()
                .is_some_and(|ports| !ports.is_empty())
            {
                published.push(name);
            }
        }
        assert_eq!(published, ["envoy"]);
        Ok(())
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        let down = [
            "down",
            "--volumes",
            "--remove-orphans",
            "--rmi",
            "local",
            "--timeout",
            "5",
        ];
        if let Err(error) = run(self.compose_command(&down)) {
            eprintln!("not torn down: {error:#}");
        }
        for image in &self.images {
            let _ = run(command("docker").args(["image", "rm", "--force", image]));
        }
    }
}

/// An image of that tag out of [`PACKAGES`], with Envoy where the tag is Envoy's.
fn make_image(tag: &str) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let rootfs = folder.path().join("rootfs");
    for sub in ["tmp", "usr/local/bin", "etc"] {
        fs::create_dir_all(rootfs.join(sub))?;
    }
    let mut download = command("apt-get");
    run(download
        .arg("download")
        .args(PACKAGES)
        .current_dir(folder.path()))
    .context("no Debian packages either")?;
    for entry in fs::read_dir(folder.path())? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            run(command("dpkg-deb").arg("--extract").arg(&path).arg(&rootfs))?;
        }
    }
    if tag == ENVOY_BASE {
        fs::copy(envoy()?, rootfs.join("usr/local/bin/envoy"))?;
    }
    let archive = folder.path().join("rootfs.tar");
    run(command("tar")
        .arg("-C")
        .arg(&rootfs)
        .args(["--owner=0", "--group=0", "-cf"])
        .arg(&archive)
        .arg("."))?;
    run(command("docker").arg("import").arg(&archive).arg(tag))?;
    Ok(())
}

fn envoy() -> Result<PathBuf> {
    let told = std::env::var_os("SLUICE_ENVOY").map(PathBuf::from);
    let path = told.unwrap_or_else(|| root().join("target/tools/envoy"));
    ensure!(
        path.is_file(),
        "{} is missing; cargo xtask setup envoy",
        path.display()
    );
    Ok(path)
}

fn root() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package)
}

fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root()).stdin(Stdio::null());
    command
}

fn run(mut command: impl std::borrow::BorrowMut<Command>) -> Result<Output> {
    let command = command.borrow_mut();
    let output = command
        .output()
        .with_context(|| format!("starting {command:?}"))?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        bail!(
            "{command:?}: {}\n{}",
            output.status,
            String::from_utf8_lossy(&said)
        );
    }
    Ok(output)
}

#[derive(Debug)]
struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key == name)?;
        Some(&found.1)
    }
}

/// One chat request on a connection of its own.
fn post(address: SocketAddr, body: &Value) -> Result<Answer> {
    let body = body.to_string();
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    write!(
        stream,
        "POST /v1/chat/completions HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer sk-example\r\n\
         content-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text
        .split_once("\r\n\r\n")
        .context("an answer without an end of headers")?;
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split_whitespace().nth(1));
    let headers: Vec<_> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let chunked = headers.iter().any(|(name, _)| name == "transfer-encoding");
    Ok(Answer {
        status: status.context("an answer without a status")?.parse()?,
        headers,
        body: if chunked {
            unchunked(body)?
        } else {
            body.to_owned()
        },
    })
}

/// A chunked body in one piece.
fn unchunked(mut rest: &str) -> Result<String> {
    let mut whole = String::new();
    loop {
        let (size, after) = rest
            .split_once("\r\n")
            .context("a chunk without its size")?;
        let size = usize::from_str_radix(size.trim(), 16)?;
        if size == 0 {
            return Ok(whole);
        }
        whole.push_str(after.get(..size).context("a chunk that is cut short")?);
        rest = after
            .get(size..)
            .unwrap_or_default()
            .trim_start_matches("\r\n");
    }
}
