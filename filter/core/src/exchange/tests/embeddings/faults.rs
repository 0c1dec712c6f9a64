//! What goes wrong: answers that cannot be joined, errors, replies that make no sense, bounds.

use super::*;

#[test]
fn an_answer_whose_vectors_cannot_be_read_is_kept_as_a_whole() {
    let mut mesh = mesh(ON);
    let nested = |_: &str| {
        let element = json!({"index": 0, "embedding": {"float": [1.0]}});
        (
            "200",
            json!({"data": [element], "usage": {"prompt_tokens": 1}}).to_string(),
        )
    };
    mesh.run.next();
    let told = mesh.ask_of(&body(json!("a")), nested);
    assert_eq!((told.status, told.stored), (200, None));
    let settle = {
        mesh.run.next();
        mesh.run.ask_as(&EMBEDDINGS, &body(json!("a")));
        mesh.run.say(Verdict::go(0), b"");
        mesh.run.answer("200", &nested("").1);
        mesh.run.done().0.unwrap().0
    };
    assert!(settle.store.is_some());
}

#[test]
fn an_answer_that_cannot_be_joined_is_an_error_and_never_a_short_list() {
    let whole = |body: &str| ("200", provide(body).to_string());
    let changed = |change: fn(&mut Value)| {
        move |body: &str| {
            let mut answer = provide(body);
            change(&mut answer);
            ("200", answer.to_string())
        }
    };
    type Upstream = Box<dyn Fn(&str) -> (&'static str, String)>;
    let cases: Vec<(&str, Upstream)> = vec![
        (
            "count",
            Box::new(changed(|it| {
                it["data"].as_array_mut().unwrap().pop();
            })),
        ),
        (
            "count",
            Box::new(changed(|it| {
                let one = it["data"][0].clone();
                it["data"].as_array_mut().unwrap().push(one);
            })),
        ),
        (
            "count",
            Box::new(changed(|it| it["data"][0]["index"] = json!(1))),
        ),
        (
            "count",
            Box::new(changed(|it| it["data"][1]["index"] = json!(7))),
        ),
        (
            "unreadable",
            Box::new(changed(|it| it["data"] = json!("none"))),
        ),
        (
            "unreadable",
            Box::new(changed(|it| it["data"][0]["embedding"] = json!(["1"]))),
        ),
        (
            "unreadable",
            Box::new(changed(|it| it["data"][0]["embedding"] = json!([1.0]))),
        ),
        (
            "unreadable",
            Box::new(changed(|it| it["error"] = json!({"message": "m"}))),
        ),
        (
            "unreadable",
            Box::new(|_: &str| ("200", "{\"data\":[".to_owned())),
        ),
        ("unreadable", Box::new(|_: &str| ("200", String::new()))),
        (
            "revision",
            Box::new(changed(|it| {
                it["model"] = json!("text-embedding-3-small-2")
            })),
        ),
        (
            "revision",
            Box::new(changed(|it| {
                for element in it["data"].as_array_mut().unwrap() {
                    element["embedding"] = json!([1.0, 2.0]);
                }
            })),
        ),
    ];
    for (reason, upstream) in cases {
        let mut mesh = mesh(ON);
        mesh.ask(&body(json!(["a", "z"])));
        let request = body(json!(["a", "b", "c"]));
        let told = mesh.ask_of(&request, upstream);
        assert_eq!(told.status, 502, "{reason}");
        let error: Value = serde_json::from_str(&told.body).unwrap();
        assert_eq!(error["error"]["code"], "embeddings_not_joined");
        assert_eq!(
            mesh.counted(&format!("cache_unjoined;result={reason};")),
            1,
            "{reason}"
        );
        assert_eq!(
            (told.record.status, told.record.outcome),
            (502, Outcome::Aborted)
        );
        assert!(
            told.record.cost.unwrap() > Usd::ZERO,
            "upstream did work: {reason}"
        );
        assert_eq!(told.record.saved.cache, Usd::ZERO);
        assert_eq!(told.stored.is_some(), reason == "revision");
        // Tried again, all of it is asked.
        let again = mesh.ask_of(&request, whole);
        assert_eq!(
            again.upstream.as_deref(),
            Some(request.as_str()),
            "{reason}"
        );
        assert_eq!((again.status, again.cache.as_str()), (200, "miss"));
        mesh.run.world.now_ns += 601 * SECOND;
        let later = mesh.ask(&body(json!(["a", "d"])));
        assert_eq!(
            (later.status, later.cache.as_str()),
            (200, "partial"),
            "{reason}"
        );
    }
}

#[test]
fn an_error_of_upstreams_passes_as_it_is_and_is_not_remembered_for_the_whole() {
    let mut mesh = mesh(r#""cache":{"negative":{}}"#);
    mesh.ask(&body(json!(["a"])));
    let error = r#"{"error":{"message":"This model's maximum context length is 8 tokens.","type":"invalid_request_error","param":"input","code":"context_length_exceeded"}}"#;
    for (status, request) in [("400", json!(["a", "b"])), ("429", json!(["c", "a"]))] {
        let told = mesh.ask_of(&body(request), |_| (status, error.to_owned()));
        assert_eq!(
            (told.status.to_string().as_str(), told.body.as_str()),
            (status, error)
        );
        assert_eq!(told.record.outcome, Outcome::UpstreamError);
        assert_eq!((told.stored, told.record.cost), (None, Some(Usd::ZERO)));
    }
    mesh.run.next();
    mesh.run.ask_as(&EMBEDDINGS, &body(json!(["x"])));
    mesh.run.say(Verdict::go(0), b"");
    mesh.run.answer("400", error);
    assert!(
        mesh.run.done().0.unwrap().0.store.is_some(),
        "of a whole it is"
    );
}

#[test]
fn what_would_not_fit_is_asked_as_a_whole() {
    let mut mesh = mesh(r#""limits":{"response_body":"3KiB"},"cache":{}"#);
    let wide = |input: Value| json!({"model": MODEL, "input": input, "dimensions": 60}).to_string();
    mesh.ask(&wide(json!(["a"])));
    assert_eq!(mesh.ask(&wide(json!(["a"]))).cache, "hit");
    let part = mesh.ask(&wide(json!(["a", "b"])));
    assert_eq!(
        (part.cache.as_str(), part.upstream),
        ("miss", Some(wide(json!(["a", "b"]))))
    );
    let same = mesh.ask(&wide(json!(vec!["a"; 10])));
    assert_eq!(same.cache, "miss", "one vector, told ten times");
    let short = json!({"model": MODEL, "input": ["a"], "dimensions": 8}).to_string();
    mesh.ask(&short);
    let two = json!({"model": MODEL, "input": ["a", "b"], "dimensions": 8}).to_string();
    let long = mesh.ask_of(&two, |body| {
        ("200", format!("{}{}", " ".repeat(3000), provide(body)))
    });
    assert_eq!(long.status, 200, "the last part is read whatever it is");
    let mut over = mesh;
    over.run.next();
    let effects = over.run.ask_as(
        &EMBEDDINGS,
        &json!({"model": MODEL, "input": ["a", "c"], "dimensions": 8}).to_string(),
    );
    let call = effects.list.iter().find_map(|effect| match effect {
        Effect::Call { body, .. } => Some(body.clone()),
        _ => None,
    });
    let reply = over.reply(&call.unwrap());
    assert!(
        over.run
            .on(Event::Reply {
                status: 200,
                body: &reply
            })
            .sent()
    );
    let head = headers(&[
        (":status", "200"),
        ("content-type", "application/json"),
        ("content-length", "4000"),
    ]);
    let told = over.run.on(Event::ResponseHeaders {
        headers: &head,
        end_of_stream: false,
    });
    assert_eq!(told.response().unwrap().0, 502);
    assert_eq!(told.counted("cache_unjoined;result=too_long;"), 1);
}

#[test]
fn an_answer_to_a_part_in_a_coding_is_decoded_and_one_in_another_is_an_error() {
    for (coding, status) in [("gzip", 200), ("zstd", 502)] {
        let mut mesh = mesh(ON);
        mesh.ask(&body(json!(["a"])));
        mesh.run.next();
        let request = body(json!(["a", "b"]));
        let effects = mesh.run.ask_as(&EMBEDDINGS, &request);
        let call = effects.list.iter().find_map(|effect| match effect {
            Effect::Call { body, .. } => Some(body.clone()),
            _ => None,
        });
        let reply = mesh.reply(&call.unwrap());
        let sent = mesh.run.on(Event::Reply {
            status: 200,
            body: &reply,
        });
        let answer = provide(&sent.new_body().unwrap()).to_string();
        let head = mesh.run.on(Event::ResponseHeaders {
            headers: &headers(&[
                (":status", "200"),
                ("content-type", "application/json"),
                ("content-encoding", coding),
                (
                    "content-digest",
                    "sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:",
                ),
            ]),
            end_of_stream: false,
        });
        if status == 502 {
            assert_eq!(head.response().unwrap().0, 502);
            continue;
        }
        for name in ["content-encoding", "content-digest"] {
            let removed = Effect::RemoveResponseHeader(name.into());
            assert!(head.list.contains(&removed), "{name}");
        }
        let told = mesh.run.on(Event::ResponseBody {
            chunk: &super::super::compressed::gzip(&answer),
            end_of_stream: true,
        });
        let replaced = told.list.iter().find_map(|effect| match effect {
            Effect::ReplaceResponseBody(body) => Some(String::from_utf8(body.clone()).unwrap()),
            _ => None,
        });
        assert_eq!(
            plain(&replaced.unwrap()),
            plain(&provide(&request).to_string())
        );
    }
}

#[test]
fn a_sidecar_that_tells_what_was_not_asked_is_not_believed() {
    let hit = Verdict::Hit {
        plan: 0,
        age_secs: 0,
        entry: EntryHead::default(),
        result: CacheResult::Hit,
        refresh: None,
    };
    let found = |found: Vec<(u16, u32)>, len| Vectors {
        found,
        len,
        ..Vectors::default()
    };
    for (verdict, vectors, bytes) in [
        (hit.clone(), found(vec![(0, 1)], 4), 4),
        (hit.clone(), found(vec![(0, 1), (2, 1)], 4), 8),
        (hit.clone(), found(vec![(1, 1), (0, 1)], 4), 8),
        (hit.clone(), found(vec![(0, 1), (1, 1)], 4), 7),
        (hit.clone(), found(vec![(0, 1), (1, 1)], 0), 0),
        (hit.clone(), found(vec![(0, 1), (1, 1)], 3), 6),
        (Verdict::go(0), found(vec![], 4), 0),
        (Verdict::go(0), found(vec![(0, 1)], u32::MAX), 4),
        (Verdict::Wait, found(vec![(0, 1)], 4), 4),
        (Verdict::go(0), found(vec![(9, 1)], 4), 4),
    ] {
        let mut run = mesh(ON).run;
        run.ask_as(&EMBEDDINGS, &body(json!(["a", "b"])));
        let head = AdmitReply {
            vectors: Some(vectors.clone()),
            ..AdmitReply::of(verdict)
        };
        let frame = Frame {
            head,
            body: vec![0; bytes],
        }
        .encode()
        .unwrap();
        let told = run.on(Event::Reply {
            status: 200,
            body: &frame,
        });
        assert_eq!(told.counted("sidecar;result=nonsense;"), 1, "{vectors:?}");
        assert!(told.sent() && told.new_body().is_none());
    }
}

#[test]
fn what_a_vm_holds_of_vectors_is_given_back() {
    let mut mesh = mesh(ON);
    mesh.ask(&body(json!(["a", "b"])));
    mesh.ask(&body(json!(["a", "c"])));
    mesh.ask_of(&body(json!(["a", "d"])), |_| ("200", String::new()));
    mesh.ask_of(&body(json!(["b", "e"])), |_| ("500", String::new()));
    assert_eq!(mesh.run.vm.vectors.get(), 0);
}
