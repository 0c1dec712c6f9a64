//! Answers that upstream compressed, because the client's `accept-encoding` was left alone.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::*;

const STREAM: &str = concat!(
    r#"data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"gpt-4o","choices":[{"index":0,"delta":{"role":"assistant","content":"Thirty days."},"finish_reason":null}]}"#,
    "\n\n",
    r#"data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"gpt-4o","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#,
    "\n\n",
    r#"data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"gpt-4o","choices":[],"usage":{"prompt_tokens":100,"completion_tokens":10,"total_tokens":110}}"#,
    "\n\ndata: [DONE]\n\n",
);

const DRY: &str = r#""mode":"dry","sidecar":{"cluster":"c"},"cache":{}"#;

pub(in crate::exchange::tests) fn gzip(plain: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(plain.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

fn br(plain: &str) -> Vec<u8> {
    let mut encoder = brotli::CompressorWriter::new(Vec::new(), 4096, 5, 22);
    encoder.write_all(plain.as_bytes()).unwrap();
    encoder.into_inner()
}

/// What the effects of an answer were: of its headers, and of its body.
struct Seen {
    head: Effects,
    body: Effects,
}

impl Run {
    fn asked(&mut self, stream: bool) {
        let body = if stream {
            BODY.replace("\"zz\"", "\"stream\": true, \"zz\"")
        } else {
            BODY.to_owned()
        };
        self.ask(&[("accept-encoding", "gzip, deflate")], &body);
        self.say(Verdict::go(0), b"");
    }

    /// Upstream's answer, in pieces of so many bytes, the last of which ends it.
    fn compressed(&mut self, coding: &str, kind: &str, bytes: &[u8], size: usize) -> Seen {
        let head = [
            (":status", "200"),
            ("content-type", kind),
            ("content-encoding", coding),
        ];
        let head = self.on(Event::ResponseHeaders {
            headers: &headers(&head),
            end_of_stream: false,
        });
        let mut flow = head.flow;
        let mut body = Effects::default();
        let (mut from, mut upto) = (0, 0);
        while upto < bytes.len() {
            upto = (upto + size).min(bytes.len());
            let begin = if flow == Flow::Pause { 0 } else { from };
            from = upto;
            let more = self.on(Event::ResponseBody {
                chunk: &bytes[begin..upto],
                end_of_stream: upto == bytes.len(),
            });
            flow = more.flow;
            body.list.extend(more.list);
        }
        Seen { head, body }
    }

    fn record(&mut self) -> (Settle, Vec<u8>) {
        self.done().0.unwrap()
    }
}

impl Seen {
    /// No byte of the answer and no header that tells of them changed.
    fn left_alone(&self) -> bool {
        let all = self.head.list.iter().chain(&self.body.list);
        !all.into_iter().any(|effect| {
            matches!(effect, Effect::ReplaceResponseBody(_))
                || matches!(effect, Effect::RemoveResponseHeader(name) if name.starts_with("content-"))
                || matches!(effect, Effect::AddResponseHeader(name, _) if name.starts_with("content-"))
        })
    }
}

fn exact(settle: &Settle) -> bool {
    let record = &settle.record;
    let tokens = (record.usage.prompt, record.usage.completion);
    !record.estimated && tokens == (100, 10) && record.outcome == Outcome::Answered
}

#[test]
fn a_dry_run_reads_a_compressed_answer_to_the_token_and_stores_it_plain() {
    for (coding, packed) in [("gzip", gzip(ANSWER)), ("br", br(ANSWER))] {
        for size in [1, 50, 5000] {
            let mut run = run(DRY);
            run.asked(false);
            let seen = run.compressed(coding, "application/json", &packed, size);
            assert!(seen.left_alone(), "{coding} by {size}");
            // 100 × 2.5 + 10 × 10, per million: told as of a plain answer.
            assert_eq!(seen.body.set("x-sluice-cost"), Some("0.00035"));
            assert_eq!(seen.body.counted("unread_answer"), 0);
            let (settle, answer) = run.record();
            assert!(exact(&settle), "{coding} by {size}: {:?}", settle.record);
            assert_eq!(answer, ANSWER.as_bytes());
        }
    }
}

#[test]
fn a_dry_run_reads_a_compressed_stream_to_the_token_and_stores_it_plain() {
    for (coding, packed) in [("gzip", gzip(STREAM)), ("BR", br(STREAM))] {
        for size in [1, 50, 5000] {
            let mut run = run(DRY);
            run.asked(true);
            let seen = run.compressed(coding, "text/event-stream", &packed, size);
            assert_eq!(seen.head.flow, Flow::Continue);
            assert!(seen.left_alone(), "{coding} by {size}");
            let (settle, answer) = run.record();
            assert!(exact(&settle), "{coding} by {size}: {:?}", settle.record);
            let answer: serde_json::Value = serde_json::from_slice(&answer).unwrap();
            assert_eq!(answer["choices"][0]["message"]["content"], "Thirty days.");
        }
    }
}

#[test]
fn what_cannot_be_decoded_is_estimated_and_counted_and_passes_as_it_came() {
    let mut damaged = gzip(ANSWER);
    let at = damaged.len() - 6;
    damaged[at] ^= 1;
    let cut = &gzip(ANSWER)[..60];
    let cases: [(&str, &str, &[u8]); 6] = [
        ("zstd", "application/json", b"\x28\xb5\x2f\xfd"),
        ("gzip", "application/json", &damaged),
        ("gzip", "application/json", cut),
        ("gzip", "application/json", ANSWER.as_bytes()),
        ("gzip", "text/event-stream", STREAM.as_bytes()),
        ("gzip", "text/event-stream", &damaged),
    ];
    for (coding, kind, bytes) in cases {
        let mut run = run(DRY);
        run.asked(kind.contains("event"));
        let seen = run.compressed(coding, kind, bytes, 40);
        let unread = seen.head.counted("unread_answer") + seen.body.counted("unread_answer");
        assert_eq!(unread, 1, "{coding} {kind}");
        assert!(seen.left_alone(), "{coding} {kind}");
        let (settle, answer) = run.record();
        let record = &settle.record;
        assert_eq!(
            (record.estimated, record.outcome, answer.len()),
            (true, Outcome::Answered, 0),
            "{coding} {kind}"
        );
        assert!(record.usage.prompt > 0);
    }
}

#[test]
fn a_stream_damaged_at_its_end_is_estimated_from_the_text_that_it_told() {
    let text = "words ".repeat(40);
    let mut packed = gzip(&STREAM.replace("Thirty days.", &text));
    let at = packed.len() - 6;
    packed[at] ^= 1;
    let mut run = run(DRY);
    run.asked(true);
    run.compressed("gzip", "text/event-stream", &packed, 5000);
    let (settle, answer) = run.record();
    let record = &settle.record;
    assert_eq!((record.estimated, record.usage.completion), (true, 60));
    assert_eq!(answer.len(), 0, "and it is not stored");
}

#[test]
fn a_client_that_leaves_a_compressed_stream_is_booked_for_what_was_told() {
    let events = STREAM.replace("Thirty days.", &"words ".repeat(40));
    let first = events.find("\n\n").unwrap() + 2;
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(&events.as_bytes()[..first]).unwrap();
    encoder.flush().unwrap();
    let mut run = run(DRY);
    run.asked(true);
    let head = [
        (":status", "200"),
        ("content-type", "text/event-stream"),
        ("content-encoding", "gzip"),
    ];
    run.on(Event::ResponseHeaders {
        headers: &headers(&head),
        end_of_stream: false,
    });
    run.on(Event::ResponseBody {
        chunk: encoder.get_ref(),
        end_of_stream: false,
    });
    let record = run.record().0.record;
    assert_eq!(
        (record.outcome, record.estimated, record.usage.completion),
        (Outcome::Aborted, true, 60)
    );
    assert_eq!(
        run.vm.decoders.left(),
        crate::coding::MOST_MEMORY,
        "its window is given back"
    );
}

#[test]
fn an_answer_is_read_up_to_the_limit_of_what_is_held_and_scanned_where_it_streams() {
    let limits = r#""limits":{"response_body":"1KiB"}"#;
    // Short as it came, too long once decoded: scanned on the way.
    let mut run = run(&format!("{DRY},{limits}"));
    run.asked(false);
    let long = ANSWER.replace("Thirty days.", &"long ".repeat(1000));
    let packed = gzip(&long);
    assert!(packed.len() < 1024);
    let seen = run.compressed("gzip", "application/json", &packed, 100);
    assert!(seen.left_alone());
    assert_eq!(seen.body.counted("unread_answer"), 0);
    assert_eq!(seen.body.set("x-sluice-cost"), Some("0.00035"));
    let (settle, answer) = run.record();
    assert!(exact(&settle), "{:?}", settle.record);
    assert_eq!(answer.len(), 0, "and not stored");
    // Too long as it came: it streams, and its usage is found all the same.
    let mut rng = fastrand::Rng::with_seed(7);
    let noise: String = (0..4000).map(|_| rng.alphanumeric()).collect();
    let packed = gzip(&ANSWER.replace("Thirty days.", &noise));
    assert!(packed.len() > 2048);
    run.next().asked(false);
    let seen = run.compressed("gzip", "application/json", &packed, 100);
    assert!(seen.left_alone());
    let (settle, answer) = run.record();
    assert!(exact(&settle), "{:?}", settle.record);
    assert_eq!(answer.len(), 0);
}

#[test]
fn an_upstream_that_compresses_unasked_is_read_and_nothing_can_be_hidden_of_it() {
    let mut run = run(&format!("{SIDECAR},\"cache\":{{}}"));
    run.asked(true);
    let seen = run.compressed("gzip", "text/event-stream", &gzip(STREAM), 40);
    assert!(seen.left_alone());
    let (settle, answer) = run.record();
    assert!(exact(&settle), "{:?}", settle.record);
    assert!(settle.store.is_some() && answer.starts_with(b"{"));
}
