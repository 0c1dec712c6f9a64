//! The official `openai` and `anthropic` packages, unmodified: against the stand-in itself, and
//! through Envoy with Sluice.
#![expect(
    clippy::unwrap_used,
    reason = "what a test's helper cannot do fails the test"
)]

use std::process::Stdio;

use serde_json::json;
use sluice_tests::provider::{Config, Provider};
use sluice_tests::stack::{Setup, Stack, caching};
use sluice_tests::tools;

/// Runs a client script; `None` where the packages are not installed and need not be.
async fn run(script: &str, base_url: &str, cached: bool) -> Option<(bool, String)> {
    let Some(python) = tools::python() else {
        assert!(
            std::env::var_os("SLUICE_REQUIRE_ALL").is_none(),
            "the official clients are not installed: cargo xtask setup"
        );
        eprintln!("SKIPPED: the official clients are not installed (cargo xtask setup)");
        return None;
    };
    let mut command = tokio::process::Command::new(python);
    command
        .arg(tools::root().join("tests/clients").join(script))
        .arg(base_url);
    command.args(cached.then_some("--cached"));
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    let output = command
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    Some((output.status.success(), text))
}

#[tokio::test]
async fn the_stand_in_passes_for_the_providers() {
    let provider = Provider::start(Config::default()).await.unwrap();
    for script in ["openai_client.py", "anthropic_client.py"] {
        if let Some((passed, text)) = run(script, &provider.url(), false).await {
            assert!(passed, "{script}:\n{text}");
        }
    }
}

#[tokio::test]
async fn the_official_clients_work_through_sluice_and_their_repeats_come_from_cache() {
    let mut setup = Setup::with(json!({"cache": caching()}));
    // A worker asks for a part of a batch once it has seen a whole answer itself.
    setup.concurrency = 1;
    let stack = Stack::start(setup).await.unwrap();
    for script in ["openai_client.py", "anthropic_client.py"] {
        if let Some((passed, text)) = run(script, &stack.envoy().url(), true).await {
            assert!(passed, "{script}:\n{text}");
        }
    }
    stack.check_no_trap().await.unwrap();
}

#[tokio::test]
async fn the_official_clients_work_through_a_dry_run_and_none_of_their_answers_goes_unread() {
    let stack = Stack::start(Setup::with(json!({"mode": "dry", "cache": caching()})))
        .await
        .unwrap();
    for script in ["openai_client.py", "anthropic_client.py"] {
        let Some((passed, text)) = run(script, &stack.envoy().url(), false).await else {
            return;
        };
        assert!(passed, "{script}:\n{text}");
        let asked = stack.provider().last_request().unwrap();
        let accepted = asked.header("accept-encoding").unwrap_or_default();
        assert!(
            accepted.contains("gzip"),
            "the clients ask for it: {accepted}"
        );
    }
    let metrics = stack.envoy().metrics().await.unwrap();
    assert!(metrics.sum("sluice.requests", &[]) > 4);
    assert_eq!(metrics.sum("sluice.unread_answer", &[]), 0);
    stack.check_no_trap().await.unwrap();
}
