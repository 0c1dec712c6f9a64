use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};

use sluice_engine::{Echo, Generate, Generated, Info};

use super::later::MOST;
use super::*;

const LONG: Duration = Duration::from_secs(60);

/// The stand-in, which writes down what it embeds; with a gate, only as often as it is let.
struct Model {
    echo: Echo,
    read: Mutex<Vec<Vec<u32>>>,
    /// Texts of each batch.
    batches: Mutex<Vec<usize>>,
    gate: Option<Mutex<Receiver<()>>>,
    /// Most words of a text.
    words: usize,
    fails: bool,
}

impl Model {
    fn new() -> Self {
        Model {
            echo: Echo::new(64),
            read: Mutex::default(),
            batches: Mutex::default(),
            gate: None,
            words: 200,
            fails: false,
        }
    }

    fn gated() -> (Self, Sender<()>) {
        let (opens, gate) = channel();
        let gate = Some(Mutex::new(gate));
        (
            Model {
                gate,
                ..Model::new()
            },
            opens,
        )
    }

    /// Which of `texts` were embedded, in that order.
    fn read(&self, texts: &[String]) -> Vec<usize> {
        let number = |tokens: &Vec<u32>| {
            let is = |text: &String| self.echo.encode(text).unwrap() == *tokens;
            texts.iter().position(is)
        };
        let read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        read.iter().filter_map(number).collect()
    }
}

impl Engine for Model {
    fn info(&self) -> &Info {
        self.echo.info()
    }

    fn encode(&self, text: &str) -> Result<Vec<u32>, EngineError> {
        let found = text.split_whitespace().count();
        if found > self.words {
            return Err(EngineError::TooLong {
                index: 0,
                found,
                limit: self.words,
            });
        }
        self.echo.encode(text)
    }

    fn embed_tokens(&self, texts: &[&[u32]]) -> Result<Vec<Vec<f32>>, EngineError> {
        if let Some(gate) = &self.gate {
            // The other end is gone when the test is over.
            let _ = gate.lock().unwrap().recv();
        }
        if self.fails {
            return Err(EngineError::Device("it is gone".to_owned()));
        }
        self.batches.lock().unwrap().push(texts.len());
        let mut read = self.read.lock().unwrap();
        read.extend(texts.iter().map(|text| text.to_vec()));
        self.echo.embed_tokens(texts)
    }

    fn generate(
        &self,
        ask: &Generate<'_>,
        piece: &mut dyn FnMut(&str) -> bool,
    ) -> Result<Generated, EngineError> {
        self.echo.generate(ask, piece)
    }
}

const OPTIONS: Options = Options {
    bytes: 1 << 20,
    threads: 1,
};

fn scorer(model: &Arc<Model>) -> Arc<Scorer> {
    Arc::new(Scorer::new(model.clone(), OPTIONS).unwrap())
}

fn comparison(tenant: &str, texts: &[String]) -> Comparison {
    Comparison {
        tenant: tenant.to_owned(),
        question: "where is my parcel".to_owned(),
        texts: texts.to_vec(),
        patience: LONG,
    }
}

/// Texts that no two have a word in common.
fn texts(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("text{n} of{n}")).collect()
}

async fn compare(scorer: &Arc<Scorer>, comparison: &Comparison) -> (Vec<Option<f32>>, Tally) {
    let (all, tally) = scorer.compare(comparison, Instant::now() + LONG).await;
    (all.into_iter().map(Similarity::cosine).collect(), tally)
}

/// [`compare`] of one that has no time at all.
async fn glance(scorer: &Arc<Scorer>, comparison: &Comparison) -> (Vec<Option<f32>>, Tally) {
    let (all, tally) = scorer.compare(comparison, Instant::now()).await;
    (all.into_iter().map(Similarity::cosine).collect(), tally)
}

async fn caught_up(scorer: &Scorer, behind: u64) {
    while scorer.size().behind < behind {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn texts_are_told_in_their_order_and_remembered() {
    let scorer = scorer(&Arc::new(Model::new()));
    let texts = ["the sky is blue", "my parcel is late", "where is my parcel"];
    let asked = comparison("acme", &texts.map(str::to_owned));
    let (told, tally) = compare(&scorer, &asked).await;
    let told: Vec<f32> = told.into_iter().map(Option::unwrap).collect();
    assert!(told[0] < told[1] && told[1] < told[2], "{told:?}");
    assert!(told[2] > 0.995, "{told:?}");
    assert_eq!((tally.embedded + tally.known, tally.late), (3, 0));

    let (again, tally) = glance(&scorer, &asked).await;
    assert_eq!(tally.known, 3);
    let again: Vec<f32> = again.into_iter().map(Option::unwrap).collect();
    assert_eq!(again, told);

    let other = Comparison {
        question: "who are you".to_owned(),
        ..asked
    };
    let (told, tally) = glance(&scorer, &other).await;
    assert_eq!(told, [None; 3], "nothing to compare them with");
    assert_eq!((tally.known, tally.unasked, tally.late), (0, 3, 0));
}

#[tokio::test]
async fn where_too_much_waits_already_texts_are_late_at_once() {
    let (model, opens) = Model::gated();
    let scorer = scorer(&Arc::new(model));
    let asking: Vec<_> = (0..WAITING)
        .map(|n| {
            let (scorer, asked) = (scorer.clone(), comparison(&n.to_string(), &texts(5)));
            tokio::spawn(async move { compare(&scorer, &asked).await.1 })
        })
        .collect();
    while scorer.batcher.stats().refused == 0 {
        tokio::task::yield_now().await;
    }
    let (told, tally) = compare(&scorer, &comparison("acme", &texts(5))).await;
    assert_eq!(told, [None; 5]);
    assert_eq!((tally.late + tally.dropped, tally.failed), (5, 0));
    asking.iter().for_each(|it| it.abort());
    drop(opens);
}

#[tokio::test]
async fn what_is_not_in_time_is_unknown_and_embedded_behind_newest_first() {
    let model = Arc::new(Model::new());
    let scorer = scorer(&model);
    let texts: Vec<String> = texts(5)
        .iter()
        // One fills a turn, so that the order is the queue's and not the batch's.
        .map(|text| format!("{text} {}", "x".repeat(BEHIND)))
        .collect();
    let asked = comparison("acme", &texts);
    let (told, tally) = glance(&scorer, &asked).await;
    assert_eq!(told, [None; 5]);
    assert_eq!((tally.known, tally.embedded, tally.late), (0, 0, 5));
    caught_up(&scorer, 5).await;
    assert_eq!(model.read(&texts), [4, 3, 2, 1, 0]);
    assert_eq!(scorer.size().waiting, 0);

    let (told, tally) = compare(&scorer, &asked).await;
    assert_eq!((tally.known, tally.late), (5, 0));
    assert!(told.iter().all(Option::is_some));
    assert_eq!(model.read(&texts).len(), 5, "each once");
}

#[tokio::test]
async fn of_new_texts_the_newest_is_embedded_first() {
    let model = Arc::new(Model::new());
    let texts = texts(12);
    compare(&scorer(&model), &comparison("acme", &texts)).await;
    let read = model.read(&texts);
    // A batch may take what waits beside its oldest in another order.
    let early = |at: usize| read.iter().position(|it| *it == at).unwrap();
    assert!(early(11) < AT_ONCE && early(0) >= 12 - AT_ONCE, "{read:?}");
}

#[tokio::test]
async fn a_text_is_known_to_the_tenant_alone_that_had_it_embedded() {
    let scorer = scorer(&Arc::new(Model::new()));
    compare(&scorer, &comparison("acme", &texts(3))).await;
    let (told, tally) = glance(&scorer, &comparison("globex", &texts(3))).await;
    assert_eq!((told, tally.known), (vec![None; 3], 0));
    // No two pairs of tenant and text are one.
    assert_ne!(scorer.id("ab", "c"), scorer.id("a", "bc"));
}

#[tokio::test]
async fn who_leaves_has_nothing_embedded_that_had_not_begun() {
    let (model, opens) = Model::gated();
    let model = Arc::new(model);
    let scorer = scorer(&model);
    let asked = comparison("acme", &texts(20));
    let asking = compare(&scorer, &asked);
    assert!(
        tokio::time::timeout(Duration::from_millis(5), asking)
            .await
            .is_err()
    );
    // The batch that runs, and the next one's.
    (0..2).for_each(|_| opens.send(()).unwrap());
    let other = vec!["another tenant's".to_owned()];
    let other = Comparison {
        question: other[0].clone(),
        ..comparison("globex", &other)
    };
    let (told, _) = compare(&scorer, &other).await;
    assert!(told[0].is_some());
    assert!(
        model.read(&texts(20)).len() <= AT_ONCE,
        "{:?}",
        model.read(&texts(20))
    );
    assert_eq!(scorer.size().waiting, 0);
}

#[tokio::test]
async fn a_model_that_fails_leaves_texts_unknown_and_is_not_asked_behind() {
    let model = Model {
        fails: true,
        ..Model::new()
    };
    let scorer = scorer(&Arc::new(model));
    let (told, tally) = compare(&scorer, &comparison("acme", &texts(6))).await;
    assert_eq!(told, [None; 6]);
    assert_eq!((tally.failed, tally.late, tally.embedded), (6, 0, 0));
    assert_eq!(scorer.size(), Size::default());
}

#[tokio::test]
async fn vectors_take_no_more_than_their_bytes() {
    let room = 10;
    let options = Options {
        bytes: room * (64 + OVERHEAD as u64),
        ..OPTIONS
    };
    let scorer = Scorer::new(Arc::new(Model::new()), options).unwrap();
    let scorer = Arc::new(scorer);
    compare(&scorer, &comparison("acme", &texts(100))).await;
    let size = scorer.size();
    assert!((1..=room).contains(&size.entries), "{size:?}");
    assert!(size.bytes <= room * (64 + OVERHEAD as u64), "{size:?}");
}

#[tokio::test]
async fn each_thread_of_the_model_has_a_text_to_work_on() {
    for (threads, together) in [(1, 1), (2, 3)] {
        let (model, opens) = Model::gated();
        let model = Arc::new(model);
        let options = Options { threads, ..OPTIONS };
        let scorer = Arc::new(Scorer::new(model.clone(), options).unwrap());
        let long: Vec<String> = texts(3)
            .iter()
            .map(|text| format!("{text} {}", "and ".repeat(148)))
            .collect();
        let asks = |texts: &[String]| {
            let (scorer, asked) = (scorer.clone(), comparison("acme", texts));
            tokio::spawn(async move { compare(&scorer, &asked).await })
        };
        // The question is known, and the model at work.
        opens.send(()).unwrap();
        asks(&[]).await.unwrap();
        let first = asks(&texts(1));
        while scorer.batcher.stats().running < 1 {
            tokio::task::yield_now().await;
        }
        let then = asks(&long);
        while scorer.batcher.stats().waiting < 3 {
            tokio::task::yield_now().await;
        }
        drop(opens);
        first.await.unwrap();
        then.await.unwrap();
        assert_eq!(model.batches.lock().unwrap()[..3], [1, 1, together]);
    }
}

#[tokio::test]
async fn more_than_the_queue_holds_is_dropped_and_counted() {
    let (model, opens) = Model::gated();
    let scorer = scorer(&Arc::new(model));
    let all = texts(MOST + 300);
    let mut sum = Tally::default();
    for some in all.chunks(256) {
        let (_, tally) = glance(&scorer, &comparison("acme", some)).await;
        sum.late += tally.late;
        sum.dropped += tally.dropped;
    }
    assert_eq!(sum.late + sum.dropped, all.len() as u64);
    // One turn's texts are worked on, and do not wait.
    assert!(sum.late <= MOST as u64 + 256 && sum.dropped > 0, "{sum:?}");
    // What waits already is not dropped, and waits once.
    let waiting = scorer.size().waiting;
    let (_, tally) = glance(&scorer, &comparison("acme", &all[256..512])).await;
    assert_eq!((tally.late, scorer.size().waiting), (256, waiting));
    drop(opens);
}

#[test]
fn of_a_text_that_is_too_long_the_beginning_is_read() {
    let model = Model {
        words: 7,
        ..Model::new()
    };
    let long = texts(40).join(" ");
    let tokens = beginning(&model, &long).unwrap();
    let whole = model.echo.encode(&long).unwrap();
    assert!((3..=7).contains(&tokens.len()), "{}", tokens.len());
    // The last word may be cut.
    let sure = tokens.len() - 1;
    assert_eq!(tokens[..sure], whole[..sure]);
    assert_eq!(beginning(&model, "two words").unwrap().len(), 2);
    let nothing = Model {
        words: 0,
        ..Model::new()
    };
    assert_eq!(beginning(&nothing, &long), Ok(vec![]));
}

#[test]
fn a_turn_has_so_many_bytes_or_one_text_and_each_text_waits_once() {
    let later = Later::default();
    let id = |n: u8| Id([n; 16]);
    assert!(!later.begin(), "nothing waits");
    for (n, len) in [(1, 30), (2, 60), (3, 5), (1, 30), (4, 500)] {
        assert!(later.push(id(n), &"x".repeat(len)));
    }
    assert!(later.begin() && !later.begin(), "one works");
    let turn = || -> Vec<Id> {
        let group = later.next(100);
        let ids = group.iter().map(|(id, _)| *id).collect();
        // While they are worked on, and after.
        assert!(group.iter().all(|(id, text)| later.push(*id, text)));
        later.done(group.iter().map(|(id, _)| id));
        ids
    };
    assert_eq!(turn(), [id(1), id(2), id(3)]);
    assert_eq!(turn(), [id(4)]);
    assert!(!later.begin());
    assert_eq!(turn(), []);
    assert!(later.push(id(1), "x") && later.begin(), "it begins anew");
    later.close();
    assert_eq!(turn(), []);
    assert!(!later.push(id(2), "x"));
}
