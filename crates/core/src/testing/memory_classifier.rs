//! A classifier that answers what a test wants.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;

use crate::{
    classifier::{Classifier, ClassifyError, Judgement, Usage},
    digest::{Capacity, Digest},
    reply,
};

/// An answer that finds nothing.
const CALM: &str = r#"{"findings":[],"summary":"Nothing is wrong.","verdict":"none"}"#;

type Answer = dyn Fn(&Digest) -> Result<String, ClassifyError> + Send + Sync;

/// Answers by a function, and remembers what it was shown. What the function says is read as a model's words are.
///
/// Stricter than a real model: it takes no digest without rows, and none with more than it said that fit.
pub struct MemoryClassifier {
    answer: Box<Answer>,
    capacity: Capacity,
    shown: Mutex<Vec<Digest>>,
    is_stuck: bool,
    working: Arc<AtomicUsize>,
}

impl MemoryClassifier {
    /// One that says what `answer` makes of each digest.
    pub fn new(answer: impl Fn(&Digest) -> Result<String, ClassifyError> + Send + Sync + 'static) -> Self {
        let capacity = Capacity { row_tokens: 10_000, chars_per_token: 3.0, rows: 50 };
        let (shown, working) = (Mutex::default(), Arc::default());
        Self { answer: Box::new(answer), capacity, shown, is_stuck: false, working }
    }

    /// One that always says the same.
    pub fn saying(text: impl Into<String>) -> Self {
        let text = text.into();
        Self::new(move |_| Ok(text.clone()))
    }

    /// One that finds nothing.
    pub fn calm() -> Self {
        Self::saying(CALM)
    }

    /// One whose server is away.
    pub fn away() -> Self {
        Self::new(|_| {
            let (origin, cause) = ("http://gpu-box:11434".to_owned(), "connection refused".into());
            Err(ClassifyError::Unavailable { origin, retry_after: None, cause })
        })
    }

    /// One that never answers.
    pub fn stuck() -> Self {
        Self { is_stuck: true, ..Self::calm() }
    }

    /// How many questions it is thinking about.
    pub fn working(&self) -> Arc<AtomicUsize> {
        self.working.clone()
    }

    /// What it was shown so far.
    pub fn shown(&self) -> Vec<Digest> {
        self.digests().clone()
    }

    fn digests(&self) -> MutexGuard<'_, Vec<Digest>> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts a question for as long as somebody waits for its answer.
struct Working<'a>(&'a AtomicUsize);

impl<'a> Working<'a> {
    fn on(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Working<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for MemoryClassifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryClassifier").field("shown", &self.digests().len()).finish_non_exhaustive()
    }
}

#[async_trait]
impl Classifier for MemoryClassifier {
    fn capacity(&self) -> Capacity {
        self.capacity
    }

    fn fingerprint(&self) -> String {
        "memory".to_owned()
    }

    async fn classify(&self, digest: &Digest) -> Result<Judgement, ClassifyError> {
        let (rows, most) = (digest.rows.len(), self.capacity.rows as usize);
        assert!((1..=most).contains(&rows), "{rows} rows where 1 to {most} are judged");
        self.digests().push(digest.clone());
        let _working = Working::on(&self.working);
        if self.is_stuck {
            std::future::pending::<()>().await;
        }
        let text = (self.answer)(digest)?;
        let answer = reply::parse(&text, digest, "memory");
        let answer = answer.map_err(|error| ClassifyError::Unusable { reason: error.to_string() })?;
        let (model, fingerprint) = ("memory".to_owned(), self.fingerprint());
        let usage = Usage { model, fingerprint, calls: 1, refused: answer.refused, ..Usage::default() };
        Ok(Judgement { verdict: answer.verdict, usage })
    }
}
