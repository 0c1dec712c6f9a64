//! `sluice cache` against a running sidecar, and what docs/caching.md says to type and to write.

use serde_json::{Value, json};
use sluice_wire::SettleRequest;

use crate::binary::{Place, Process, call, connect, fresh, request, run, text};
use crate::common::{ACME, frame, key, with_answer};

const PAGE: &str = include_str!("../../../docs/caching.md");

/// The lines of the page's blocks in `language`, block by block.
fn blocks(language: &str) -> Vec<&'static str> {
    PAGE.split("\n```")
        .filter_map(|part| part.strip_prefix(language)?.strip_prefix('\n'))
        .collect()
}

/// Keeps two answers built on `doc:42` of acme, and one of nobody's alone.
async fn fill(process: &Process, first: u128) {
    let mut sender = connect(&process.address).await.unwrap();
    let items = [(1, "acme/doc:42"), (2, "acme/doc:42"), (3, "/doc:7")]
        .map(|(n, tag)| {
            let item = fresh(first + u128::from(n), 1);
            let mut item = with_answer(item, key(n), 11);
            item.store.as_mut().unwrap().tags = vec![tag.to_owned()];
            item
        })
        .to_vec();
    let body = frame(
        &SettleRequest { items },
        b"confidentiaconfidentiaconfidentia",
    );
    let (status, body) = call(&mut sender, request("/v1/settle", body))
        .await
        .unwrap();
    assert_eq!(status, 200, "{body:?}");
}

/// Runs `sluice cache` on `process`; what it printed, and whether it succeeded.
fn cache(process: &Process, args: &[&str], stdin: &str) -> (bool, String) {
    let url = format!("http://{}", process.address);
    let mut all = vec!["cache", args[0], "--url", &url];
    all.extend(&args[1..]);
    let output = run(&all, stdin);
    let printed = [text(&output.stdout), text(&output.stderr)].concat();
    (output.status.success(), printed)
}

#[tokio::test]
async fn an_operator_looks_into_the_cache_and_drops_from_it() {
    let place = Place::new(&json!({}));
    let process = Process::start(&place.config());
    fill(&process, 0).await;
    let (one, two) = (key(1), key(2));

    let (_, printed) = cache(&process, &["get", &one], "");
    let kept: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(
        (&kept["tags"], &kept["body_bytes"]),
        (&json!(["acme/doc:42"]), &json!(11))
    );
    assert!(!printed.contains("confidentia"), "{printed}");
    let (_, printed) = cache(&process, &["get", &one, "--body"], "");
    assert!(printed.contains("\"body\": \"confidentia\""), "{printed}");

    assert_eq!(
        cache(&process, &["drop", &one], ""),
        (true, "dropped\n".to_owned())
    );
    let (done, printed) = cache(&process, &["drop", &one], "");
    assert!(
        !done && printed.contains("no answer is kept there"),
        "{printed}"
    );

    let by_tag = ["drop", "--tag", "doc:42", "--tenant", "globex"];
    assert!(cache(&process, &by_tag, "").0);
    assert!(cache(&process, &["get", &two], "").0, "another tenant's");
    let by_tag = ["drop", "--tag", "doc:42", "--tenant", "acme"];
    let (done, printed) = cache(&process, &by_tag, "");
    assert!(
        done && printed.contains("everywhere within 0 ms"),
        "{printed}"
    );
    let (done, printed) = cache(&process, &["get", &two], "");
    assert!(!done && printed.contains("404"), "{printed}");

    for no in ["", "n\n", "\n"] {
        let (done, printed) = cache(&process, &["drop", "--all"], no);
        assert!(
            !done && printed.contains("nothing was dropped"),
            "{printed}"
        );
    }
    assert!(cache(&process, &["get", &key(3)], "").0);
    assert!(cache(&process, &["drop", "--all"], "y\n").0);
    assert!(!cache(&process, &["get", &key(3)], "").0);

    let (_, printed) = cache(&process, &["stats"], "");
    for line in [
        "memory\n",
        "entries    0\n",
        "hits       4 (",
        "stored     3\n",
    ] {
        assert!(printed.contains(line), "{line} in\n{printed}");
    }
    let (_, printed) = cache(&process, &["stats", "--json"], "");
    let listing: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(listing["layers"][0]["voided"], 1);

    let (done, printed) = cache(&process, &["stats", "--token", ACME], "");
    assert!(!done && printed.contains("403"), "{printed}");
    for wrong in [
        &["drop"][..],
        &["drop", &one, "--all"],
        &["get", "zz"],
        &["drop", "--yes"],
    ] {
        assert!(!cache(&process, wrong, "").0, "{wrong:?}");
    }
}

#[tokio::test]
async fn every_command_of_the_page_works() {
    let place = Place::new(&json!({}));
    let process = Process::start(&place.config());
    let mut commands = 0;
    for line in blocks("sh").iter().flat_map(|block| block.lines()) {
        fill(&process, 1_000 * (commands + 1)).await;
        let key = key(3);
        let words: Vec<&str> = line
            .split_whitespace()
            .map(|word| if word == "KEY" { &*key } else { word })
            .collect();
        let ["sluice", "cache", args @ ..] = &words[..] else {
            panic!("not a command of ours: {line}");
        };
        let (done, printed) = cache(&process, args, "");
        assert!(done, "{line}: {printed}");
        commands += 1;
    }
    assert!(commands > 4, "{commands}");
}

#[test]
fn every_config_of_the_page_is_taken() {
    let yaml = blocks("yaml");
    assert!(yaml.len() > 2, "{}", yaml.len());
    for block in yaml {
        let whole = format!("sidecar: {{cluster: c, secret: s}}\n{block}");
        let env = |name: &str| (name == "REDIS_URL").then(|| "rediss://redis:6379".to_owned());
        let read = sluice::config::parse(&whole, false, &env);
        assert!(read.is_ok(), "{block}\n{}", read.unwrap_err());
    }
}
