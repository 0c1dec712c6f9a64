//! A dry run changes nothing and tells what it would have saved.

use serde_json::json;
use sluice_tests::conversations::Conversation;
use sluice_tests::requests::CHAT;
use sluice_tests::stack::{Setup, Stack};

use super::{TALKING, booked, left_out, post, relevant, sent, turn};

#[tokio::test]
async fn a_route_in_a_dry_run_sends_what_came_and_books_what_it_would_have_saved() {
    let config = json!({
        "trim": relevant(),
        "routes": [{
            "name": "careful",
            "match": {"headers": {"x-careful": "yes"}},
            "trim": {"mode": "dry"},
        }],
    });
    let stack = Stack::start(Setup::with(config)).await.unwrap();
    let careful = stack.client().with("x-careful", "yes");
    let conversation = Conversation::support(1);
    for (at, api) in TALKING.into_iter().enumerate() {
        let body = turn(api, &conversation, 24);
        let answer = post(&careful, api, &body).await;
        assert_eq!(left_out(&answer), 0);
        assert_eq!(sent(&stack).body, body.to_string(), "{}", api.name);
        let records = booked(&stack, at + 1).await;
        let record = &records[at];
        assert_eq!((record.route.as_str(), record.saved.trim.0), ("careful", 0));
        assert!(record.would_save.trim.0 > 0, "{record:?}");
        assert_eq!(record.as_asked, record.cost);
    }
    let metrics = stack.envoy().metrics().await.unwrap();
    assert_eq!(metrics.sum("sluice.trim", &[("action", "dry")]), 3);
    // What has no route of its own is trimmed.
    let answer = post(&stack.client(), CHAT, &turn(CHAT, &conversation, 24)).await;
    assert!(left_out(&answer) > 1000);
    booked(&stack, 4).await;
}
