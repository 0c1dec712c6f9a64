//! Trimming in a request's life: what is asked, sent, booked, remembered, and sent again.

use sluice_wire::{Remember, Similarity, Trimmed, limit, path};

use super::*;

const HISTORY: &str = r#""trim":{"history":{"keep":"recent","tokens":30,"last":0}}"#;
/// With a past that is long enough for the provider's cache.
const LONG: &str = r#""trim":{"history":{"keep":"recent","tokens":400,"last":0}}"#;
const RETRY: &str = r#""sidecar":{"cluster":"c","secret":"s3cret"},"trim":{"history":{"keep":"recent","tokens":30,"last":0},"retry":{"cluster":"self"}}"#;
const TRUST: &str = r#""identity":{"trust":[{"header":{"name":"x-key","value":"k"}}]}"#;
const TEMPLATES: &str = r#""templates":[{"name":"plain","user":"Question: {{question}}"},
    {"name":"long","system":"LONGER","user":"{{context}}\n\n{{question}}"}]"#;

/// A chat of so many exchanges of some fifty tokens, and a question.
pub(super) fn chat(exchanges: usize) -> String {
    let mut messages = String::new();
    for at in 0..exchanges {
        let text = format!("number {at} ").repeat(8);
        messages.push_str(&format!(
            r#"{{"role":"user","content":"Tell {text}"}},{{"role":"assistant","content":"Told {text}"}},"#
        ));
    }
    format!(
        r#"{{"model": "gpt-4o", "messages":[{messages}{{"role":"user","content":"And what of number {exchanges}?"}}]}}"#
    )
}

fn messages(body: &str) -> Vec<serde_json::Value> {
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    body["messages"].as_array().unwrap().clone()
}

/// Lets a request through that the sidecar says this of.
pub(super) fn reply(run: &mut Run, head: AdmitReply) -> Effects {
    let frame = Frame { head, body: b"" }.encode().unwrap();
    run.on(Event::Reply {
        status: 200,
        body: &frame,
    })
}

pub(super) fn remembered(run: &mut Run) -> Option<Remember> {
    run.done().0.unwrap().0.sent
}

#[test]
fn what_is_left_out_is_told_booked_and_remembered() {
    let mut run = run(&format!("{SIDECAR},{HISTORY}"));
    let body = chat(6);
    let asked = run.ask(&[], &body);
    let admit = asked.call().unwrap();
    let conversation = admit.conversation.unwrap();
    assert_eq!(conversation.len(), 64);
    assert!(admit.relevance.is_none(), "no meanings are compared");
    let sent = run.say(Verdict::go(0), b"");
    let went = sent.new_body().unwrap();
    let (kept, all) = (messages(&went), messages(&body));
    assert!(kept.len() < all.len() && kept.last() == all.last());
    assert!(sent.list.iter().any(|effect| matches!(effect,
        Effect::Debug(line) if line.contains("messages Some") && !line.contains("Tell"))));
    assert_eq!(sent.counted("trim;action=anew;"), 1);
    let answered = run.answer("200", ANSWER);
    let trimmed: u64 = answered
        .set("x-sluice-tokens-trimmed")
        .unwrap()
        .parse()
        .unwrap();
    assert!(trimmed > 0 && sent.counted("trimmed_tokens") == trimmed);
    let (settle, counted) = run.done();
    let settle = settle.unwrap().0;
    let saved = settle.record.saved.trim;
    assert!(saved > Usd::ZERO);
    // Nothing was held at this price: each token at the plain price.
    assert_eq!(saved, Usd(2_500_000).times(trimmed));
    let told = Trimmed {
        tokens: trimmed,
        gross: saved,
        lost: Usd::ZERO,
    };
    assert_eq!(settle.record.trim, Some(told));
    assert_eq!(
        counted.counted("trim_nanodollars;kind=gross;"),
        2500 * trimmed
    );
    assert_eq!(counted.counted("trim_nanodollars"), 2500 * trimmed);
    assert_eq!(settle.record.usage.prompt, 100, "what upstream worked for");
    let remember = settle.sent.unwrap();
    assert_eq!(remember.conversation, conversation);
    assert!(remember.state.len() <= limit::STATE && !remember.state.contains("number"));
}

#[test]
fn the_next_turn_goes_on_from_what_the_sidecar_remembers() {
    let mut run = run(&format!("{SIDECAR},{LONG}"));
    let turn = |run: &mut Run, body: &str, state: Option<String>| {
        run.world.now_ns += 5 * SECOND;
        let conversation = run
            .next()
            .ask(&[], body)
            .call()
            .unwrap()
            .conversation
            .unwrap();
        let head = AdmitReply {
            sent: state,
            ..AdmitReply::of(Verdict::go(0))
        };
        let went = reply(run, head);
        run.answer("200", ANSWER);
        (conversation, went, remembered(run).unwrap().state)
    };
    let body = chat(40);
    let (one, first, state) = turn(&mut run, &body, None);
    let first = first.new_body().unwrap();
    let grown = body.trim_end_matches("]}").to_owned()
        + r#",{"role":"assistant","content":"That."},{"role":"user","content":"Good."}]}"#;
    // Another worker, which knows what it is told alone.
    let mut other = super::run(&format!("{SIDECAR},{LONG}"));
    other.world.now_ns = run.world.now_ns;
    let (two, second, later) = turn(&mut other, &grown, Some(state.clone()));
    assert_eq!(one, two, "it has the same name while it begins alike");
    let second = second.new_body().unwrap();
    let front = first.trim_end_matches("]}");
    assert!(second.starts_with(front), "{front}\n{second}");
    assert_ne!(state, later);
    // This one knows better than a sidecar that was not told yet.
    let (_, own, _) = turn(&mut run, &grown, None);
    assert_eq!(own.new_body().unwrap(), second);
    // Nonsense is no state.
    for nonsense in ["{}", "null", "\u{0}", r#"{"sent":{"at_ms":-1}}"#] {
        let mut new = super::run(&format!("{SIDECAR},{LONG}"));
        let (_, sent, _) = turn(&mut new, &grown, Some(nonsense.into()));
        assert!(sent.sent());
    }
}

#[test]
fn without_a_sidecar_a_worker_remembers_by_itself_what_upstream_took() {
    let mut run = run(LONG);
    let body = chat(40);
    let first = run.ask(&[], &body).new_body().unwrap();
    run.answer("200", ANSWER);
    run.done();
    let grown = body.trim_end_matches("]}").to_owned()
        + r#",{"role":"assistant","content":"That."},{"role":"user","content":"Good."}]}"#;
    run.world.now_ns += SECOND;
    let second = run.next().ask(&[], &grown);
    assert_eq!(
        second.counted("trim;action=extended;"),
        1,
        "{:?}",
        second.list
    );
    assert!(
        second
            .new_body()
            .unwrap()
            .starts_with(first.trim_end_matches("]}"))
    );
}

#[test]
fn what_upstream_refused_was_never_sent() {
    let mut run = run(LONG);
    let body = chat(40);
    run.ask(&[], &body);
    run.answer("500", "{}");
    run.done();
    let grown = body.trim_end_matches("]}").to_owned()
        + r#",{"role":"assistant","content":"That."},{"role":"user","content":"Good."}]}"#;
    let second = run.next().ask(&[], &grown);
    assert_eq!(
        second.counted("trim;action=extended;"),
        0,
        "{:?}",
        second.list
    );
}

#[test]
fn nobody_learns_or_spoils_what_another_tenant_sent() {
    let config = format!(
        r#"{SIDECAR},{HISTORY},"identity":{{"tenant":[{{"header":"x-tenant"}}],"conversation":[{{"header":"x-conv"}}]}}"#
    );
    let name = |extra: &[(&str, &str)]| {
        let plan = format!("{{{MODELS},{config}}}");
        let config = match Plan::parse(plan.as_bytes(), &|_| None) {
            Ok(_) => config.clone(),
            Err(_) => config.replace(r#","conversation":[{"header":"x-conv"}]"#, ""),
        };
        let mut run = run(&config);
        run.ask(extra, &chat(4))
            .call()
            .unwrap()
            .conversation
            .unwrap()
    };
    let one = name(&[("x-tenant", "a"), ("x-conv", "1")]);
    assert_eq!(one, name(&[("x-tenant", "a"), ("x-conv", "1")]));
    assert_ne!(one, name(&[("x-tenant", "b"), ("x-conv", "1")]));
    assert_ne!(one, name(&[("x-tenant", "a1"), ("x-conv", "")]));
}

#[test]
fn of_callers_without_a_name_none_takes_anothers_conversation_by_its_id() {
    let config = format!(
        r#"{SIDECAR},{HISTORY},"identity":{{"tenant":[{{"header":"x-tenant"}}],"conversation":[{{"header":"x-conv"}}]}}"#
    );
    let name = |tenant: &str, body: &str| {
        let asked = run(&config).ask(&[("x-tenant", tenant), ("x-conv", "1")], body);
        asked.call().unwrap().conversation.unwrap()
    };
    let own = chat(4);
    let first = messages(&own)[0]["content"].as_str().unwrap().to_owned();
    let forged = own.replacen(&first, "Something else.", 1);
    assert_ne!(forged, own);
    assert_eq!(name("", &own), name("", &chat(5)), "as long as it lasts");
    assert_ne!(name("", &own), name("", &forged));
    assert_eq!(
        name("acme", &own),
        name("acme", &forged),
        "a tenant's own id does"
    );
}

#[test]
fn meanings_are_asked_for_once_and_count() {
    let history = r#""trim":{"history":{"keep":"relevant","tokens":120,"last":0,"embeddings":{"timeout":"70ms"}}}"#;
    let mut run = run(&format!(
        r#""sidecar":{{"cluster":"c","wait":"20s","waits":2}},{history},"cache":{{}}"#
    ));
    let body = chat(6);
    let asked = run.ask(&[], &body);
    let call = asked.list.iter().find_map(|effect| match effect {
        Effect::Call {
            body,
            timeout_ms,
            path,
        } => Some((body.clone(), *timeout_ms, *path)),
        _ => None,
    });
    let (frame, timeout_ms, to) = call.unwrap();
    assert_eq!(to, path::ADMIT);
    let frame = Frame::<AdmitRequest, _>::decode(&frame[..]).unwrap();
    let relevance = frame.head.relevance.clone().unwrap();
    assert_eq!(
        (relevance.question.as_str(), relevance.max_ms),
        ("And what of number 6?", 70)
    );
    assert_eq!(relevance.lens.len(), 6);
    let texts: u32 = relevance.lens.iter().sum();
    assert!(frame.body.ends_with(
        b"Told number 5 number 5 number 5 number 5 number 5 number 5 number 5 number 5 "
    ));
    assert_eq!(frame.head.body_len(), frame.body.len() as u64);
    assert!(frame.body.len() >= texts as usize && timeout_ms >= 70);
    // It is told to wait first: the texts are not sent again, and what was answered stands.
    let similarities = [0.0, 0.0, 0.95, 0.0, 0.0, 0.0].map(Similarity::of).to_vec();
    let again = reply(
        &mut run,
        AdmitReply {
            similarities: Some(similarities),
            ..AdmitReply::of(Verdict::Wait)
        },
    );
    let second = again.call().unwrap();
    assert!(second.relevance.is_none(), "asked once");
    let sent = run.say(Verdict::go(0), b"");
    let went = sent.new_body().unwrap();
    assert!(went.contains("Told number 2"), "{went}");
    let key = |run: &mut Run| {
        run.next().ask(&[], &body).call().unwrap().plans[0]
            .key
            .clone()
    };
    let before = key(&mut run);
    let mut without = super::run(&format!(
        "{SIDECAR},{},\"cache\":{{}}",
        history.replace(r#","embeddings":{"timeout":"70ms"}"#, "")
    ));
    assert!(before.is_some() && key(&mut without).is_some());
    assert_eq!(before, key(&mut run), "what is found out changes no key");
}

#[test]
fn in_dry_nothing_changes_and_what_would_be_saved_is_told() {
    let dry = HISTORY.replace(r#""trim":{"#, r#""trim":{"mode":"dry","#);
    let mut run = run(&format!("{SIDECAR},\"cache\":{{}},{dry}"));
    let asked = run.ask(&[], &chat(6));
    assert!(asked.call().unwrap().conversation.is_none());
    let sent = run.say(Verdict::go(0), b"");
    assert!(sent.sent() && sent.new_body().is_none());
    assert!(sent.counted("trimmed_tokens;action=dry;") > 0);
    let answered = run.answer("200", ANSWER.replace(":100", ":400").as_str());
    assert_eq!(answered.set("x-sluice-tokens-trimmed"), Some("0"));
    let settle = run.done().0.unwrap().0;
    assert!(settle.record.would_save.trim > Usd::ZERO && settle.record.saved.trim == Usd::ZERO);
    assert_eq!(settle.record.trim, None, "all of it was sent");
    assert!(settle.sent.is_none());
}

#[test]
fn a_prompt_over_its_limit_that_fits_once_it_is_trimmed_goes_out() {
    let limited = |tokens: u64| {
        HISTORY.replace(
            r#""trim":{"#,
            &format!(r#""trim":{{"input_tokens":{{"limit":{tokens}}},"#),
        )
    };
    let mut fits = run(&limited(60));
    let sent = fits.ask(&[], &chat(8));
    assert!(sent.sent() && messages(&sent.new_body().unwrap()).len() < 10);
    let mut over = run(&limited(3));
    let (status, _, body) = over.ask(&[], &chat(8)).response().unwrap();
    assert!(status == 400 && body.contains("prompt_too_long"));
    let mut dry = run(&limited(3).replace(r#""trim":{"#, r#""trim":{"mode":"dry","#));
    assert!(dry.ask(&[], &chat(8)).sent());
}

#[test]
fn chunks_in_their_field_and_a_templates_text_count_against_limit_and_budget() {
    let chunk = "word ".repeat(400);
    let body = BODY.replace(r#""zz""#, &format!(r#""sluice_context":["{chunk}"],"zz""#));
    let limit = r#""trim":{"context":{"markers":[{"json":{}}]},"input_tokens":{"limit":100}}"#;
    let mut run = super::run(limit);
    let (status, _, told) = run.ask(&[], &body).response().unwrap();
    assert!(status == 400 && told.contains("prompt_too_long"));
    let trim = r#""trim":{"context":{"markers":[{"json":{}}]}}"#;
    let reserve = |trim: &str, body: &str| {
        let mut run = super::run(
            &format!("{SIDECAR},{CACHED},{TEMPLATES},{trim}")
                .replace("LONGER", &"long ".repeat(300)),
        );
        let admit = run.ask(&[], body).call().unwrap();
        admit.plans[0].charges[0].clone()
    };
    let plain = reserve(trim, BODY);
    let field = reserve(trim, &body);
    assert!(field.reserve >= plain.reserve + 350);
    let template = reserve(r#""trim":{"template":"long"}"#, BODY);
    assert!(template.reserve >= plain.reserve + 250);
    assert!(reserve(r#""trim":{"mode":"off","template":"long"}"#, BODY) == plain);
}

#[test]
fn of_chunks_in_their_field_no_more_is_reserved_than_may_stay() {
    let chunk = |at: usize| format!("\"{}\"", "word ".repeat(100 + 10 * at));
    let of = |which: &[usize]| {
        let list: Vec<String> = which.iter().map(|at| chunk(*at)).collect();
        let field = format!("\"sluice_context\":[{}],\"zz\"", list.join(","));
        BODY.replace("\"zz\"", &field)
    };
    let trim = |mode: &str, top_k: &str| {
        format!(
            r#""trim":{{"mode":"{mode}","context":{{"markers":[{{"json":{{}}}}],"duplicates":"off"{top_k}}}}}"#
        )
    };
    let charges = |trim: &str, body: &str| {
        let mut run = counting(&format!("{SIDECAR},{CACHED},{trim}"));
        let guess = run.ask(&[], body).call().unwrap().plans[0].charges[0].clone();
        let count = run.say(Verdict::Count, b"").call().unwrap();
        let exact = count.plans[0].charges[0].clone();
        assert_eq!(exact.reserve, exact.at_most);
        // What no provider told of is booked as what went out.
        run.say(Verdict::go(0), b"");
        run.answer("200", r#"{"choices":[{"message":{"content":"Hi."}}]}"#);
        let usage = run.done().0.unwrap().0.record.usage;
        [guess.reserve, guess.at_most, exact.reserve, usage.prompt]
    };
    let all = of(&[0, 7, 2, 3, 9, 5]);
    let (on, two) = (trim("on", ""), trim("on", r#","top_k":2"#));
    assert_eq!(
        charges(&two, &all)[..3],
        charges(&on, &of(&[7, 9]))[..3],
        "the two longest, whichever are the best"
    );
    let (whole, best) = (charges(&on, &all), charges(&two, &all));
    assert!(best[2] + 400 < whole[2], "{best:?} {whole:?}");
    assert!(best[3] + 400 < whole[3], "{best:?} {whole:?}");
    assert!(
        best[3] > 190,
        "what was left out is taken off once: {best:?}"
    );
    // By tokens, not by bytes: white space is long and is little.
    let odd = BODY.replace(
        "\"zz\"",
        &format!(
            "\"sluice_context\":[\"{}\",\"{}\",\"a\"],\"zz\"",
            " ".repeat(9_000),
            "w7 ".repeat(900)
        ),
    );
    let one = trim("on", r#","top_k":1"#);
    assert!(charges(&one, &odd)[2] > 1_500, "{:?}", charges(&one, &odd));
    let six = trim("on", r#","top_k":6"#);
    assert_eq!(charges(&six, &all), whole);
    let dry = trim("dry", r#","top_k":2"#);
    assert_eq!(charges(&dry, &all), whole, "all of it goes out");
}

#[test]
fn what_was_put_in_or_left_out_teaches_nothing_about_a_models_tokens() {
    let teaches = |config: &str, body: &str| {
        let mut run = run(config);
        let before = run.vm.tokens.estimate("gpt-4o", 10_000);
        run.ask(&[], body);
        if config.contains("sidecar") {
            run.say(Verdict::go(0), b"");
        }
        run.answer("200", &ANSWER.replace(":100", ":9000"));
        run.done();
        before != run.vm.tokens.estimate("gpt-4o", 10_000)
    };
    assert!(
        teaches(&HISTORY.replace("30", "3000"), &chat(2)),
        "what goes as it is teaches"
    );
    assert!(!teaches(HISTORY, &chat(8)));
    assert!(!teaches(
        &format!(r#"{TEMPLATES},"trim":{{"template":"long"}}"#),
        BODY
    ));
    let field = BODY.replace(
        r#""zz""#,
        r#""sluice_context":["some text that is put in"],"zz""#,
    );
    assert!(!teaches(
        r#""trim":{"context":{"markers":[{"json":{}}]}}"#,
        &field
    ));
}

#[test]
fn a_trusted_caller_chooses_the_template_and_has_a_key_of_its_own() {
    let config =
        format!("{SIDECAR},{TRUST},{TEMPLATES},\"cache\":{{}},\"trim\":{{\"template\":\"plain\"}}");
    let key = |extra: &[(&str, &str)]| {
        let mut run = run(&config);
        let key = run.ask(extra, BODY).call().unwrap().plans[0]
            .key
            .clone()
            .unwrap();
        (key, run.say(Verdict::go(0), b"").new_body().unwrap())
    };
    let (plain, body) = key(&[]);
    assert!(
        body.contains("Question: What is your refund policy?"),
        "{body}"
    );
    let (long, body) = key(&[("x-key", "k"), ("x-sluice-template", "long")]);
    assert!(body.contains("LONGER") && long != plain);
    let (forged, body) = key(&[("x-sluice-template", "long")]);
    assert!(!body.contains("LONGER") && forged == plain);
    let (unknown, _) = key(&[("x-key", "k"), ("x-sluice-template", "no such")]);
    assert_eq!(unknown, plain);
}

#[test]
fn chunks_in_their_field_are_put_into_the_prompt_in_every_mode_but_off() {
    let body = BODY.replace(
        r#""zz""#,
        r#""sluice_context":["Refunds take 30 days.","The sky is blue."],"zz""#,
    );
    let trim = |mode: &str| {
        format!(r#""trim":{{"mode":"{mode}","context":{{"markers":[{{"json":{{}}}}],"top_k":1}}}}"#)
    };
    let on = run(&trim("on")).ask(&[], &body).new_body().unwrap();
    assert!(
        on.contains("Refunds take") && !on.contains("sky") && !on.contains("sluice_context"),
        "{on}"
    );
    let dry = run(&trim("dry")).ask(&[], &body).new_body().unwrap();
    assert!(dry.contains("Refunds take") && dry.contains("sky") && !dry.contains("sluice_context"));
    let off = run(&trim("off")).ask(&[], &body);
    assert!(off.sent() && off.new_body().is_none());
    for odd in ["7", "{}", "[7]", "null", r#"[{"score":1}]"#] {
        let body = BODY.replace(r#""zz""#, &format!(r#""sluice_context":{odd},"zz""#));
        let refused = run(&trim("on")).ask(&[], &body);
        if odd == "null" {
            continue;
        }
        let (status, _, told) = refused.response().unwrap();
        assert!(status == 400 && told.contains("invalid_context"), "{odd}");
        assert!(run(&trim("dry")).ask(&[], &body).sent(), "{odd}");
    }
}

#[test]
fn a_refusal_of_what_was_trimmed_is_not_remembered() {
    let refusal = r#"{"error":{"message":"nothing is known of it","type":"invalid_request_error","param":"temperature","code":"x"}}"#;
    let stored = |body: &str| {
        let mut run = run(&format!(
            r#"{SIDECAR},"cache":{{"negative":{{}}}},{HISTORY}"#
        ));
        run.ask(&[], body);
        run.say(Verdict::go(0), b"");
        run.answer("400", refusal);
        run.done().0.unwrap().0.store.is_some()
    };
    assert!(stored(&chat(0)));
    assert!(!stored(&chat(8)));
}

const BLAMES: &str = r#"{"error":{"message":"messages with role 'tool' must follow","type":"invalid_request_error","param":"messages.[3].role","code":null}}"#;

/// Sent trimmed and refused for it; what the attempt is.
fn refused(run: &mut Run, body: &str) -> (Effects, Effects) {
    run.ask(&[], body);
    let sent = run.say(Verdict::go(0), b"");
    let answered = run.answer("400", BLAMES);
    (sent, answered)
}

/// Cluster and body, and the seal that it has.
type Sent = (String, String, String);

fn attempt(effects: &Effects) -> Option<Sent> {
    effects.list.iter().find_map(|effect| match effect {
        Effect::Attempt {
            cluster,
            seal,
            body,
            ..
        } => Some((
            cluster.clone(),
            String::from_utf8(body.clone()).unwrap(),
            seal.attempt(&as_kept(&CHAT), Digest::of(body)),
        )),
        _ => None,
    })
}

#[test]
fn what_is_refused_for_what_was_left_out_goes_out_once_more_whole() {
    let body = chat(8);
    let mut run = run(&format!("{RETRY},\"cache\":{{}}"));
    let (sent, answered) = refused(&mut run, &body);
    assert!(sent.list.contains(&Effect::KeepRequest));
    let (cluster, whole, _) = attempt(&answered).unwrap();
    assert_eq!(
        (cluster.as_str(), messages(&whole)),
        ("self", messages(&body))
    );
    let head = super::headers(&[(":status", "200"), ("content-type", "application/json")]);
    let told = run.on(Event::Attempt {
        headers: &head,
        body: ANSWER.as_bytes(),
    });
    let (status, headers, answer) = told.response().unwrap();
    assert_eq!((status, answer.as_str()), (200, ANSWER));
    assert_eq!(headers["x-sluice-tokens-trimmed"], "0");
    let (settle, answer) = run.done().0.unwrap();
    assert_eq!(settle.record.outcome, Outcome::Answered);
    assert_eq!(
        (settle.record.usage.prompt, settle.record.saved.trim),
        (100, Usd::ZERO)
    );
    assert_eq!(settle.record.trim, None);
    assert!(settle.sent.is_none() && settle.store.is_some() && answer == ANSWER.as_bytes());
}

#[test]
fn an_attempt_that_fails_leaves_the_refusal_and_one_that_is_refused_takes_its_place() {
    let body = chat(8);
    let mut failed = run(RETRY);
    refused(&mut failed, &body);
    let told = failed.on(Event::ReplyFailed);
    assert!(told.list.contains(&Effect::ResumeResponse));
    assert!(told.response().is_none() && told.set("x-sluice-cost").is_some());
    let settle = failed.done().0.unwrap().0;
    assert_eq!(
        (settle.record.outcome, settle.record.status),
        (Outcome::UpstreamError, 400)
    );
    assert!(settle.sent.is_none());

    let mut again = run(RETRY);
    refused(&mut again, &body);
    let head = headers(&[
        (":status", "429"),
        ("content-type", "application/json"),
        ("retry-after", "7"),
    ]);
    let (status, headers, told) = again
        .on(Event::Attempt {
            headers: &head,
            body: b"{}",
        })
        .response()
        .unwrap();
    assert_eq!(
        (status, headers["retry-after"].as_str(), told.as_str()),
        (429, "7", "{}")
    );
    let settle = again.done().0.unwrap().0;
    assert_eq!(
        (settle.record.outcome, settle.record.cost),
        (Outcome::UpstreamError, Some(Usd::ZERO))
    );
}

#[test]
fn an_attempt_without_a_status_is_no_answer() {
    for odd in ["", "0", "99", "x", "1000"] {
        let mut run = run(RETRY);
        refused(&mut run, &chat(8));
        let head = headers(&[(":status", odd)]);
        let told = run.on(Event::Attempt {
            headers: &head,
            body: b"",
        });
        assert!(told.response().is_none(), "{odd}");
        assert!(told.list.contains(&Effect::ResumeResponse));
    }
}

#[test]
fn a_streamed_attempt_hides_the_usage_that_we_asked_for() {
    let body = chat(8).replace(r#""messages""#, r#""stream":true,"messages""#);
    let mut run = run(RETRY);
    let (_, answered) = refused(&mut run, &body);
    let (_, whole, _) = attempt(&answered).unwrap();
    assert!(whole.contains("include_usage"), "{whole}");
    let shown = "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi.\"},\"finish_reason\":\"stop\"}]}\n\n";
    let usage = "data: {\"id\":\"c\",\"choices\":[],\"usage\":{\"prompt_tokens\":500,\"completion_tokens\":1,\"total_tokens\":501}}\n\n";
    let stream = format!("{shown}{usage}data: [DONE]\n\n");
    let head = headers(&[(":status", "200"), ("content-type", "text/event-stream")]);
    let (_, _, told) = run
        .on(Event::Attempt {
            headers: &head,
            body: stream.as_bytes(),
        })
        .response()
        .unwrap();
    assert_eq!(told, format!("{shown}data: [DONE]\n\n"));
    let record = run.done().0.unwrap().0.record;
    assert_eq!((record.usage.prompt, record.estimated), (500, false));
}

#[test]
fn one_whose_client_leaves_while_it_is_attempted_is_no_answer() {
    let mut run = run(RETRY);
    refused(&mut run, &chat(8));
    let settle = run.done().0.unwrap().0;
    // As of any request that was sent and left: what upstream made of it is not known.
    assert_eq!(settle.record.outcome, Outcome::Aborted);
    assert!(settle.record.estimated && settle.record.cost > Some(Usd::ZERO));
    assert!(settle.sent.is_none() && settle.record.saved.trim == Usd::ZERO);
    assert_eq!(run.on(Event::ReplyFailed).list, []);
    assert_eq!(run.vm.untrimmed.get(), 0, "nothing is held for it any more");
}

#[test]
fn an_attempt_goes_where_and_as_the_tier_says() {
    let mut run = run(&format!(r#"{RETRY},"route":{{{TIERS}}}"#));
    let body = chat(8);
    let (sent, answered) = refused(&mut run, &body);
    let place = |wanted: &dyn Fn(&Effect) -> bool| sent.list.iter().position(wanted).unwrap();
    let tier = place(&|effect| matches!(effect, Effect::AddRequestHeader("x-sluice-tier", _)));
    let keep = place(&|effect| *effect == Effect::KeepRequest);
    assert!(tier < keep && keep < place(&|effect| *effect == Effect::ResumeRequest));
    let (_, whole, _) = attempt(&answered).unwrap();
    let whole_body: serde_json::Value = serde_json::from_str(&whole).unwrap();
    assert_eq!(
        (
            whole_body["model"].as_str(),
            whole_body["max_completion_tokens"].as_u64()
        ),
        (Some("gpt-4o-mini"), Some(64))
    );
    assert_eq!(messages(&whole), messages(&body));
}

#[test]
fn what_was_not_trimmed_or_not_blamed_is_not_sent_again() {
    let mut whole = run(RETRY);
    let (sent, answered) = refused(&mut whole, &chat(0));
    assert!(!sent.list.contains(&Effect::KeepRequest) && attempt(&answered).is_none());
    let other =
        r#"{"error":{"message":"bad key","type":"invalid_request_error","param":"temperature"}}"#;
    for (status, error) in [
        ("400", other),
        ("401", BLAMES),
        ("500", BLAMES),
        ("400", "nonsense"),
    ] {
        let mut run = run(RETRY);
        run.ask(&[], &chat(8));
        run.say(Verdict::go(0), b"");
        let answered = run.answer(status, error);
        assert!(attempt(&answered).is_none(), "{status} {error}");
        assert_eq!(run.vm.untrimmed.get(), 0);
    }
}

#[test]
fn trimmed_tokens_are_on_every_answer() {
    let config = format!("{SIDECAR},\"cache\":{{}},{HISTORY}");
    let mut hit = run(&config);
    hit.ask(&[], &chat(6));
    let entry = EntryHead {
        format: "openai.chat".into(),
        model: "gpt-4o".into(),
        ..EntryHead::default()
    };
    let verdict = Verdict::Hit {
        plan: 0,
        age_secs: 1,
        entry,
        result: CacheResult::Hit,
        refresh: None,
    };
    let (_, headers, _) = hit.say(verdict, ANSWER.as_bytes()).response().unwrap();
    assert_eq!(headers["x-sluice-tokens-trimmed"], "0");
    let settle = hit.done().0.unwrap().0;
    assert!(settle.sent.is_none() && settle.record.saved.trim == Usd::ZERO);
    let mut plain = run(r#""mode":"on""#);
    plain.ask(&[], BODY);
    assert_eq!(
        plain.answer("200", ANSWER).set("x-sluice-tokens-trimmed"),
        Some("0")
    );
}

#[test]
fn what_never_went_upstream_says_that_nothing_was_trimmed() {
    let zero = |effects: &Effects, expected: u16| {
        let (status, headers, _) = effects.response().unwrap();
        assert_eq!(status, expected);
        assert_eq!(headers["x-sluice-tokens-trimmed"], "0");
    };
    let over = HISTORY.replace("{\"history", r#"{"input_tokens":{"limit":5},"history"#);
    zero(&run(&over).ask(&[], &chat(6)), 400);
    let budget = r#""budgets":[{"per":"tenant","tokens":1000,"every":"day","over":"reject"}]"#;
    let mut spent = run(&format!("{SIDECAR},{HISTORY},{budget}"));
    spent.ask(&[], &chat(6));
    let verdict = Verdict::Over {
        rule: 0,
        limit: 1000,
        used: 1000,
        reset_secs: 60,
    };
    zero(&spent.say(verdict, b""), 429);
    let mut long = run(&format!(
        r#"{HISTORY},"limits":{{"request_body":"1KiB","on_failure":"closed"}}"#
    ));
    zero(&long.ask(&[("content-length", "2000")], &chat(6)), 413);
    let mut odd = run(&format!(r#"{HISTORY},"limits":{{"on_failure":"closed"}}"#));
    zero(&odd.ask(&[], "not json"), 400);
    // Envoy's own error, while the request is held.
    let mut held = run(&format!("{SIDECAR},{HISTORY}"));
    held.ask(&[], &chat(6));
    let answered = held.answer("503", "{}");
    assert_eq!(answered.set("x-sluice-tokens-trimmed"), Some("0"));
}

#[test]
fn bodies_that_are_odd_leave_as_they_came() {
    let config = r#""trim":{"history":{"tokens":10},"system":{"tokens":1000},"context":{"markers":[{"json":{}}]}}"#;
    for body in [
        r#"{"model":"gpt-4o","messages":[],"messages":[{"role":"user","content":"x"}]}"#,
        r#"{"model":"gpt-4o","messages":[{"role":"user","content":"x"}],"messages":[]}"#,
        r#"{"model":"gpt-4o","messages":null}"#,
        r#"{"model":"gpt-4o","messages":[]}"#,
        r#"{"model":"gpt-4o","messages":[{"role":"system","content":"x"}]}"#,
        r#"{"model":"gpt-4o","messages":[{"role":"assistant","content":"x"}]}"#,
        r#"{"model":"gpt-4o","messages":{"role":"user"}}"#,
        "\u{feff}{\"model\":\"gpt-4o\",\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}",
        r#"{"model":"gpt-4o","messages":[{"role":"user","content":"\ud800"}]}"#,
    ] {
        let sent = run(config).ask(&[], body);
        assert!(
            sent.sent() && sent.new_body().is_none(),
            "{body}: {:?}",
            sent.list
        );
    }
}

#[test]
fn what_is_named_twice_is_cut_nowhere_or_where_upstream_reads_it() {
    let many = chat(8);
    let list = many
        .split_once("\"messages\":")
        .unwrap()
        .1
        .trim_end_matches('}')
        .to_owned();
    let body = format!(
        r#"{{"model":"gpt-4o","messages":[{{"role":"user","content":"short"}}],"messages":{list}}}"#
    );
    let sent = run(HISTORY).ask(&[], &body);
    let went = sent.new_body().unwrap_or(body);
    let read: serde_json::Value = serde_json::from_str(&went).unwrap();
    assert_eq!(
        read["messages"].as_array().unwrap().last(),
        messages(&many).last()
    );
}
