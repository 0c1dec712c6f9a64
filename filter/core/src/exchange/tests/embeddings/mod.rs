//! Embedding requests input by input: what is looked up, what goes upstream, what the client gets.

mod faults;
mod joins;

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use serde_json::{Value, json};
use sluice_wire::{StoreVectors, Vectors};

use super::*;

const EMBEDDINGS: [(&str, &str); 4] = [
    (":method", "POST"),
    (":path", "/v1/embeddings"),
    (":authority", "api.example.com"),
    ("authorization", "Bearer sk-1"),
];
const PRICED: &str =
    r#""models":{"text-embedding-3-small":{"input":0.02}},"sidecar":{"cluster":"c"}"#;
const MODEL: &str = "text-embedding-3-small";

/// Tokens of an input: letters, or numbers.
fn tokens(input: &Value) -> u64 {
    match input {
        Value::String(text) => text.chars().count() as u64,
        list => list.as_array().map_or(0, |list| list.len() as u64),
    }
}

/// The vector of an input: numbers that no other has.
fn vector(input: &Value, dimensions: usize) -> Vec<f32> {
    let hash = blake3::hash(input.to_string().as_bytes());
    let bytes = hash.as_bytes().iter().cycle();
    bytes
        .take(dimensions)
        .map(|byte| f32::from(*byte) / 255.0 - 0.3)
        .collect()
}

fn inputs(body: &Value) -> Vec<Value> {
    match &body["input"] {
        Value::Array(list) if list.iter().any(Value::is_number) => vec![body["input"].clone()],
        Value::Array(list) => list.clone(),
        one => vec![one.clone()],
    }
}

/// What a provider answers.
fn provide(body: &str) -> Value {
    let body: Value = serde_json::from_str(body).unwrap();
    let dimensions = body["dimensions"].as_u64().unwrap_or(3) as usize;
    let inputs = inputs(&body);
    let element = |(index, input): (usize, &Value)| {
        let vector = vector(input, dimensions);
        let embedding = match body["encoding_format"] == "base64" {
            true => {
                let bytes: Vec<u8> = vector.iter().flat_map(|it| it.to_le_bytes()).collect();
                json!(STANDARD.encode(bytes))
            }
            false => json!(vector),
        };
        json!({"object": "embedding", "index": index, "embedding": embedding})
    };
    let data: Vec<Value> = inputs.iter().enumerate().map(element).collect();
    let sum: u64 = inputs.iter().map(tokens).sum();
    json!({
        "object": "list", "data": data, "model": "text-embedding-3-small-1",
        "usage": {"prompt_tokens": sum, "total_tokens": sum},
    })
}

/// An answer with its vectors as numbers of one width, however they are told.
fn plain(answer: &str) -> Value {
    let mut answer: Value = serde_json::from_str(answer).unwrap();
    for element in answer["data"].as_array_mut().unwrap() {
        let vector: Vec<f32> = match &element["embedding"] {
            Value::String(text) => STANDARD
                .decode(text)
                .unwrap()
                .chunks_exact(4)
                .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()))
                .collect(),
            list => serde_json::from_value(list.clone()).unwrap(),
        };
        element["embedding"] = json!(vector);
    }
    answer
}

/// What came of a request.
#[derive(Debug)]
struct Told {
    status: u16,
    cache: String,
    body: String,
    /// What upstream was asked.
    upstream: Option<String>,
    record: Record,
    stored: Option<StoreVectors>,
}

/// A filter with a sidecar that keeps vectors.
struct Mesh {
    run: Run,
    kept: HashMap<[u8; 32], (Vec<u8>, u32, String)>,
    /// Model and length of what was stored last: others count as missing.
    newest: (String, usize),
    /// Keys of the last look-up.
    asked: Vec<[u8; 32]>,
    counts: Vec<Effects>,
}

fn mesh(config: &str) -> Mesh {
    let plan = Plan::parse(format!("{{{PRICED},{config}}}").as_bytes(), &|_| None).unwrap();
    let mut run = run(SIDECAR);
    run.vm = Vm::new(Rc::new(plan), Tokens::load(&[]));
    Mesh {
        run,
        kept: HashMap::new(),
        newest: Default::default(),
        asked: Vec::new(),
        counts: Vec::new(),
    }
}

impl Mesh {
    /// The sidecar's word on a call.
    fn reply(&mut self, call: &[u8]) -> Vec<u8> {
        let frame = Frame::<AdmitRequest, _>::decode(call).unwrap();
        let plan = &frame.head.plans[0];
        let (keys, []) = frame.body.as_chunks::<32>() else {
            panic!("a key is cut");
        };
        assert_eq!(keys.len(), plan.inputs as usize);
        self.asked = keys.to_vec();
        let room = frame.head.cache.vector_bytes;
        let mut vectors = Vectors::default();
        let mut body = Vec::new();
        for (number, key) in (0..).zip(keys) {
            if let Some((vector, tokens, model)) = self.kept.get(key)
                && self.newest == (model.clone(), vector.len())
            {
                vectors.found.push((number, *tokens));
                vectors.len = vector.len() as u32;
                vectors.model = model.clone();
                body.extend_from_slice(vector);
            }
        }
        let all = !keys.is_empty() && vectors.found.len() == keys.len();
        let too_long = room > 0 && body.len() > room as usize;
        if room == 0 {
            body.clear();
        }
        let found = (!vectors.found.is_empty() && !too_long).then_some(vectors);
        let verdict = match all && !too_long {
            true => Verdict::Hit {
                plan: 0,
                age_secs: 7,
                entry: EntryHead::default(),
                result: CacheResult::Hit,
                refresh: None,
            },
            false => Verdict::go(0),
        };
        let head = AdmitReply {
            vectors: found,
            ..AdmitReply::of(verdict)
        };
        if too_long {
            body.clear();
        }
        Frame { head, body }.encode().unwrap()
    }

    /// One request, whose answer upstream gives as it will.
    fn ask_of(&mut self, body: &str, upstream: impl Fn(&str) -> (&'static str, String)) -> Told {
        self.run.next();
        let mut effects = self.run.ask_as(&EMBEDDINGS, body);
        let mut all = Effects::default();
        while let Some(call) = effects.list.iter().find_map(|effect| match effect {
            Effect::Call { body, .. } => Some(body.clone()),
            _ => None,
        }) {
            let body = self.reply(&call);
            all.list.extend(effects.list);
            let reply = Event::Reply {
                status: 200,
                body: &body,
            };
            effects = self.run.on(reply);
        }
        let asked = effects.new_body().unwrap_or_else(|| body.to_owned());
        let (sent, mut response) = (effects.sent(), effects.response());
        let mut told = Effects::default();
        if sent {
            let (status, answer) = upstream(&asked);
            told = self.run.answer(status, &answer);
            let replaced = told.list.iter().find_map(|effect| match effect {
                Effect::ReplaceResponseBody(body) => Some(String::from_utf8(body.clone()).unwrap()),
                _ => None,
            });
            let headers = [("x-sluice-cache", told.set("x-sluice-cache"))];
            let headers = headers
                .into_iter()
                .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())))
                .collect();
            response = told
                .response()
                .or_else(|| Some((status.parse().unwrap(), headers, replaced.unwrap_or(answer))));
        }
        let (settle, done) = self.run.done();
        let (settle, bytes) = settle.unwrap();
        if let Some(store) = &settle.vectors {
            assert_eq!(bytes.len() as u64, settle.body_len());
            let each = bytes.chunks_exact(32 + store.len as usize);
            for (one, tokens) in each.zip(&store.tokens) {
                let (key, vector) = one.split_at(32);
                let kept = (vector.to_vec(), *tokens, store.model.clone());
                self.newest = (store.model.clone(), vector.len());
                self.kept.insert(key.try_into().unwrap(), kept);
            }
        }
        all.list.extend(effects.list);
        all.list.extend(told.list);
        all.list.extend(done.list);
        self.counts.push(all);
        let (status, headers, body) = response.unwrap();
        Told {
            status,
            cache: headers["x-sluice-cache"].clone(),
            body,
            upstream: sent.then_some(asked),
            record: settle.record,
            stored: settle.vectors,
        }
    }

    fn ask(&mut self, body: &str) -> Told {
        self.ask_of(body, |body| ("200", provide(body).to_string()))
    }

    /// Of the last request.
    fn counted(&self, part: &str) -> u64 {
        self.counts.last().unwrap().counted(part)
    }
}

fn body(input: Value) -> String {
    json!({"model": MODEL, "input": input}).to_string()
}

const ON: &str = r#""cache":{}"#;

fn usd(tokens: u64) -> Usd {
    Usd::from_dollars(0.02 / 1e6).times(tokens)
}

#[test]
fn inputs_that_are_all_known_are_answered_without_upstream() {
    let mut mesh = mesh(ON);
    let first = mesh.ask(&body(json!(["one", "three"])));
    assert_eq!(
        (first.cache.as_str(), mesh.counted("items;result=miss;")),
        ("miss", 2)
    );
    assert_eq!(
        plain(&first.body),
        plain(&provide(&body(json!(["one", "three"]))).to_string()),
        "an answer to a whole is upstream's own"
    );
    let stored = first.stored.unwrap();
    assert_eq!((stored.len, stored.tokens), (12, vec![3, 5]));
    assert_eq!(
        (stored.ttl_secs, stored.model.as_str()),
        (600, "text-embedding-3-small-1")
    );
    for (input, expected) in [
        (json!(["three", "one"]), 8),
        (json!("one"), 3),
        (json!(["one", "one", "three", "one"]), 14),
    ] {
        let again = mesh.ask(&body(input.clone()));
        assert_eq!(
            (again.upstream, again.cache.as_str()),
            (None, "hit"),
            "{input}"
        );
        assert_eq!(again.stored, None);
        assert_eq!(
            plain(&again.body),
            plain(&provide(&body(input)).to_string())
        );
        let record = again.record;
        assert_eq!(
            (record.usage.prompt, record.cost),
            (expected, Some(Usd::ZERO))
        );
        assert_eq!(record.saved.cache, usd(expected));
    }
    assert_eq!(mesh.counted("items;result=hit;"), 4);
}

#[test]
fn upstream_is_asked_for_what_is_missing_and_the_answer_is_one() {
    let mut mesh = mesh(ON);
    mesh.ask(&body(json!(["b", "dd"])));
    let asked = r#"{ "input" : ["aaa", "b" ,"c\u0063cc", "aaa","dd"], "model":"text-embedding-3-small" , "user": "u"}"#;
    let part = mesh.ask(asked);
    assert_eq!(
        part.upstream.as_deref(),
        Some(r#"{ "input" : ["aaa","c\u0063cc"], "model":"text-embedding-3-small" , "user": "u"}"#),
        "every byte beside the inputs stays"
    );
    assert_eq!((part.status, part.cache.as_str()), (200, "partial"));
    assert_eq!(plain(&part.body), plain(&provide(asked).to_string()));
    assert_eq!(part.stored.unwrap().tokens, [3, 4]);
    let record = part.record;
    assert_eq!(
        (record.cache, record.outcome),
        (CacheResult::Partial, Outcome::Answered)
    );
    assert_eq!(record.usage.prompt, 7, "what upstream worked for");
    assert_eq!(
        (record.cost, record.as_asked),
        (Some(usd(7)), Some(usd(13)))
    );
    assert_eq!(record.saved.cache, usd(6));
    assert_eq!(
        (
            mesh.counted("items;result=hit;"),
            mesh.counted("items;result=miss;")
        ),
        (3, 2)
    );
    assert_eq!(
        mesh.counted("tokens;model=text-embedding-3-small;source=cache;"),
        6
    );
    assert_eq!(mesh.ask(asked).cache, "hit");
}

#[test]
fn a_vector_serves_whoever_asks_in_numbers_and_in_base64() {
    let mut mesh = mesh(ON);
    let coded = |input: Value| {
        json!({"model": MODEL, "input": input, "encoding_format": "base64"}).to_string()
    };
    mesh.ask(&body(json!(["a", "b"])));
    let hit = mesh.ask(&coded(json!(["b", "a"])));
    assert_eq!(hit.cache, "hit");
    let value: Value = serde_json::from_str(&hit.body).unwrap();
    assert_eq!(
        value,
        provide(&coded(json!(["b", "a"]))),
        "as the provider tells it"
    );
    let part = mesh.ask(&coded(json!(["c", "a"])));
    assert_eq!(part.cache, "partial");
    assert_eq!(
        plain(&part.body),
        plain(&provide(&coded(json!(["c", "a"]))).to_string())
    );
    assert!(serde_json::from_str::<Value>(&part.body).unwrap()["data"][1]["embedding"].is_string());
    let numbers = mesh.ask(&body(json!(["c", "b"])));
    assert_eq!(numbers.cache, "hit");
    assert!(
        numbers.body.contains(r#""embedding":[0."#) || numbers.body.contains(r#""embedding":[-0."#)
    );
}

#[test]
fn tokens_are_inputs_too_and_no_text() {
    let mut mesh = mesh(ON);
    mesh.ask(&body(json!([[1, 2], [3]])));
    assert_eq!(
        mesh.ask(&body(json!([3]))).cache,
        "hit",
        "a list of tokens alone"
    );
    assert_eq!(mesh.ask(&body(json!([[3], [1, 2, 3]]))).cache, "partial");
    assert_eq!(mesh.ask(&body(json!("[3]"))).cache, "miss");
    assert_eq!(mesh.ask(&body(json!(["3", "[3]"]))).cache, "partial");
}

#[test]
fn everything_that_bears_on_a_vector_is_in_its_key_and_how_it_is_told_is_not() {
    let key = |config: &str, headers: &[(&str, &str)], body: &str| {
        let mut mesh = mesh(config);
        let mut all = EMBEDDINGS.to_vec();
        all.retain(|(name, _)| headers.iter().all(|(other, _)| other != name));
        all.extend(headers);
        let effects = mesh.run.ask_as(&all, body);
        let call = effects.list.iter().find_map(|effect| match effect {
            Effect::Call { body, .. } => Some(body.clone()),
            _ => None,
        });
        mesh.reply(&call.unwrap());
        assert_eq!(mesh.asked.len(), 1, "{body}");
        mesh.asked[0]
    };
    let plain = r#"{"model":"text-embedding-3-small","input":"Köln"}"#;
    let same = [
        r#"{"input":["K\u00f6ln"],"model":"text-embedding-3-small"}"#,
        r#"{"model":"text-embedding-3-small","input":["Köln","Köln"],"user":"x"}"#,
        r#"{"model":"text-embedding-3-small","input":"Köln","encoding_format":"base64","dimensions":null}"#,
    ];
    let one = key(ON, &[], plain);
    for body in same {
        assert_eq!(key(ON, &[], body), one, "{body}");
    }
    let mut others = BTreeSet::from([one]);
    let mut differs = |config: &str, headers: &[(&str, &str)], body: &str| {
        assert!(
            others.insert(key(config, headers, body)),
            "{config} {headers:?} {body}"
        );
    };
    for body in [
        r#"{"model":"text-embedding-3-large","input":"Köln"}"#,
        r#"{"model":"text-embedding-3-small","input":"Ko\u0308ln"}"#,
        r#"{"model":"text-embedding-3-small","input":"Köln "}"#,
        r#"{"model":"text-embedding-3-small","input":"köln"}"#,
        r#"{"model":"text-embedding-3-small","input":"Köln","dimensions":256}"#,
        r#"{"model":"text-embedding-3-small","input":"Köln","dimensions":512}"#,
        r#"{"model":"text-embedding-3-small","input":[42]}"#,
    ] {
        differs(ON, &[], body);
    }
    differs(ON, &[("authorization", "Bearer sk-2")], plain);
    differs(ON, &[(":authority", "other.example.com")], plain);
    differs(ON, &[(":path", "/eu/v1/embeddings")], plain);
    differs(ON, &[("openai-project", "p")], plain);
    differs(r#""cache":{"scope":"global"}"#, &[], plain);
    differs(r#""cache":{"embedding":{"dtype":"f16"}}"#, &[], plain);
    differs(
        r#""cache":{"headers":["x-region"]}"#,
        &[("x-region", "eu")],
        plain,
    );
}

#[test]
fn a_request_of_which_not_everything_is_known_is_kept_as_a_whole() {
    let many = json!(vec!["x"; 2049]);
    for body in [
        json!({"model": MODEL, "input": ["a"], "output_dtype": "int8"}).to_string(),
        json!({"model": MODEL, "input": ["a"], "encoding_format": "ubinary"}).to_string(),
        json!({"model": MODEL, "input": ["a"], "dimensions": 2.5}).to_string(),
        json!({"model": MODEL, "input": [["a"]]}).to_string(),
        json!({"model": MODEL, "input": [{"text": "a"}]}).to_string(),
        json!({"model": MODEL, "input": [-1]}).to_string(),
        json!({"model": MODEL, "input": []}).to_string(),
        json!({"model": MODEL, "input": ["a", [1]], "input_type": "query"}).to_string(),
        json!({"model": MODEL, "input": many}).to_string(),
        r#"{"model":"m","input":["a"],"input":["b"]}"#.to_owned(),
        r#"{"model":"m","input":["\ud800"]}"#.to_owned(),
    ] {
        let mut run = mesh(ON).run;
        let call = run.ask_as(&EMBEDDINGS, &body).call().unwrap();
        assert_eq!(
            (call.plans[0].inputs, call.plans[0].key.is_some()),
            (0, true),
            "{body}"
        );
        run.say(Verdict::go(0), b"");
        run.answer("200", r#"{"object":"list","data":[{"index":0,"embedding":[1]}],"usage":{"prompt_tokens":1,"total_tokens":1}}"#);
        let settle = run.done().0.unwrap().0;
        assert!(settle.store.is_some() && settle.vectors.is_none(), "{body}");
    }
    let mut off = mesh(r#""cache":{"embedding":{"mode":"off"}}"#).run;
    let call = off.ask_as(&EMBEDDINGS, &body(json!("a"))).call().unwrap();
    assert_eq!(call.plans[0].inputs, 0);
}

#[test]
fn a_dry_cache_counts_inputs_and_changes_no_byte() {
    let mut mesh = mesh(r#""cache":{"mode":"dry"}"#);
    let asked = mesh.ask(&body(json!(["a", "bb"])));
    assert!(asked.stored.is_some());
    let part = mesh.ask(&body(json!(["bb", "c"])));
    assert_eq!(part.upstream, Some(body(json!(["bb", "c"]))));
    assert_eq!(
        (part.cache.as_str(), part.record.would_save.cache),
        ("miss", usd(2))
    );
    assert_eq!(part.record.cost, Some(usd(3)));
    assert_eq!(
        (
            mesh.counted("items;result=dry_hit;"),
            mesh.counted("items;result=miss;")
        ),
        (1, 1)
    );
    let all = mesh.ask(&body(json!(["bb", "a"])));
    assert!(all.upstream.is_some());
    assert_eq!(all.record.would_save.cache, usd(3));
    assert_eq!(
        (
            mesh.counted("items;result=dry_hit;"),
            mesh.counted("dry_hits;")
        ),
        (2, 1)
    );
}

#[test]
fn halves_take_half_and_are_told_as_whole_numbers() {
    let mut mesh = mesh(r#""cache":{"embedding":{"dtype":"f16"}}"#);
    let first = mesh.ask(&body(json!(["a", "b"])));
    assert_eq!(first.stored.unwrap().len, 6);
    let again = mesh.ask(&body(json!(["b", "a"])));
    assert_eq!(again.cache, "hit");
    let (told, exact) = (
        plain(&again.body),
        plain(&provide(&body(json!(["b", "a"]))).to_string()),
    );
    for index in 0..2 {
        for number in 0..3 {
            let of = |it: &Value| it["data"][index]["embedding"][number].as_f64().unwrap();
            assert!((of(&told) - of(&exact)).abs() <= of(&exact).abs() / 2048.0);
        }
    }
}

#[test]
fn vectors_of_a_caller_that_wants_none_of_the_cache_are_neither_looked_up_nor_kept() {
    let mut run = mesh(ON).run;
    let mut all = EMBEDDINGS.to_vec();
    all.push(("cache-control", "no-store"));
    assert!(run.ask_as(&all, &body(json!("a"))).call().is_none());
    run.answer("200", &provide(&body(json!("a"))).to_string());
    assert_eq!(run.done().0.unwrap().0.vectors, None);
    let mut run = mesh(ON).run;
    *all.last_mut().unwrap() = ("cache-control", "no-cache");
    assert!(run.ask_as(&all, &body(json!("a"))).call().is_none());
    run.answer("200", &provide(&body(json!("a"))).to_string());
    assert!(run.done().0.unwrap().0.vectors.is_some(), "a newer one");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_is_known_the_answer_is_the_one_that_upstream_would_have_given(
        batches in prop::collection::vec(
            (prop::collection::vec(("[a-e]{1,2}", any::<bool>()), 1..8), any::<bool>(), prop::option::of(1_u8..4)),
            1..12,
        )
    ) {
        let mut mesh = mesh(ON);
        for (texts, base64, dimensions) in batches {
            let inputs: Vec<Value> = texts
                .iter()
                .map(|(text, ids)| match ids {
                    true => json!(text.bytes().collect::<Vec<_>>()),
                    false => json!(text),
                })
                .collect();
            let mut request = json!({"model": MODEL, "input": inputs});
            if base64 {
                request["encoding_format"] = json!("base64");
            }
            if let Some(dimensions) = dimensions {
                request["dimensions"] = json!(dimensions);
            }
            let request = request.to_string();
            let told = mesh.ask(&request);
            prop_assert_eq!(told.status, 200);
            let expected = provide(&request).to_string();
            prop_assert_eq!(plain(&told.body), plain(&expected), "{}", told.cache);
            let is_text = |body: &str| body.contains(r#""embedding":""#);
            prop_assert_eq!(is_text(&told.body), is_text(&expected));
            prop_assert_eq!(Some(told.record.saved.total()), told.record.as_asked.zip(told.record.cost).map(|(a, b)| a - b));
        }
    }
}
