//! What every classifier promises, as functions that each implementation runs against its server's double.

use std::collections::HashSet;

use futures::{FutureExt, future::select, pin_mut};

use crate::{
    classifier::{Classifier, ClassifyError},
    digest::Digest,
    error::chain,
};

/// What stands behind a classifier, as the double of its server is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behind {
    /// A model that answers in the form that it was asked for.
    Honest,
    /// One that cites a row which does not exist, beside one that does.
    Inventive,
    /// One that never ends an answer in the form that it was asked for.
    Broken,
    /// Nobody.
    Nobody,
    /// One that thinks for ever.
    Slow,
}

/// What an inventive model answers: a finding about the first row, and one about a row that does not exist.
pub const INVENTIVE: &str = r#"{"findings":[
{"cites":[1],"explanation":"It is so.","kind":"other","next_step":"Look.","severity":"high","title":"True"},
{"cites":[1,999],"explanation":"It is not.","kind":"other","next_step":"Look.","severity":"high","title":"Invented"}
],"summary":"Two things.","verdict":"high"}"#;

/// What the double of a slow model knows.
#[expect(async_fn_in_trait, reason = "for tests, which hold no such future across threads")]
pub trait Slow {
    /// Resolves when the model is at work.
    async fn works(&self);
    /// Resolves when it has stopped.
    async fn stops(&self);
}

/// Every promise of a classifier that asks a model. `make` gives one with that behind it, and its double, which is kept for
/// as long as it is asked. The digest must have rows.
///
/// # Panics
///
/// When the classifier breaks the contract.
pub async fn every_promise<C: Classifier, D: Slow>(digest: &Digest, make: impl AsyncFn(Behind) -> (C, D)) {
    let (classifier, _double) = make(Behind::Honest).await;
    judges_what_it_was_shown(&classifier, digest).await;
    let (classifier, _double) = make(Behind::Inventive).await;
    refuses_what_is_not_there(&classifier, digest).await;
    let (classifier, _double) = make(Behind::Broken).await;
    repairs_nothing(&classifier, digest).await;
    let (classifier, _double) = make(Behind::Nobody).await;
    says_that_nobody_is_there(&classifier, digest).await;
    let (classifier, double) = make(Behind::Slow).await;
    stops_when_it_is_left(&classifier, &double, digest).await;
}

async fn refuses_what_is_not_there(classifier: &dyn Classifier, digest: &Digest) {
    judges_what_it_was_shown(classifier, digest).await;
    let judgement = classifier.classify(digest).await.unwrap_or_else(|error| panic!("{}", chain(&error)));
    assert_eq!(judgement.usage.refused, 1, "what is refused is counted");
    assert_eq!(judgement.verdict.findings.len(), 1, "what is true stays");
}

async fn repairs_nothing(classifier: &dyn Classifier, digest: &Digest) {
    match classifier.classify(digest).await {
        Err(error @ ClassifyError::Unusable { .. }) => assert!(!error.is_transient(), "{error}"),
        other => panic!("a broken answer was taken for {other:?}"),
    }
}

async fn says_that_nobody_is_there(classifier: &dyn Classifier, digest: &Digest) {
    classifier.prepare().await;
    let capacity = classifier.capacity();
    assert!(capacity.rows > 0 && capacity.row_tokens > 0 && !classifier.fingerprint().is_empty(), "{capacity:?}");
    match classifier.classify(digest).await {
        Err(error @ ClassifyError::Unavailable { .. }) => assert!(error.is_transient(), "{error}"),
        other => panic!("nobody was taken for {other:?}"),
    }
}

async fn stops_when_it_is_left(classifier: &dyn Classifier, double: &impl Slow, digest: &Digest) {
    {
        let (asked, works) = (classifier.classify(digest), double.works());
        pin_mut!(works);
        // `select` drops neither; this block drops both.
        if let futures::future::Either::Left((answer, _)) = select(asked, works).await {
            panic!("a model that never answers answered {answer:?}");
        }
    }
    double.stops().await;
}

/// A classifier judges what it was shown and nothing else, says who it is without being asked a question, and can be
/// stopped at any time. The digest must have rows, and the classifier be able to answer.
///
/// # Panics
///
/// When the classifier breaks the contract.
pub async fn judges_what_it_was_shown(classifier: &dyn Classifier, digest: &Digest) {
    classifier.prepare().await;
    let capacity = classifier.capacity();
    assert!(capacity.rows > 0 && capacity.row_tokens > 0 && capacity.chars_per_token > 0.0, "{capacity:?}");
    let fingerprint = classifier.fingerprint();
    assert!(!fingerprint.is_empty());

    // Whoever asked has left.
    drop(classifier.classify(digest).now_or_never());

    let judgement = classifier.classify(digest).await.unwrap_or_else(|error| panic!("{}", chain(&error)));
    let known = |row: &u32| (*row as usize) < digest.rows.len();
    for finding in &judgement.verdict.findings {
        assert!(finding.rows.iter().all(known), "a row that was not shown: {finding:?}");
        assert!(!finding.anomalous.is_empty(), "a finding about nothing: {finding:?}");
        assert!(finding.anomalous.iter().all(|row| finding.rows.contains(row)), "{finding:?}");
        assert_eq!(finding.profile, digest.profile.name);
        assert!(finding.floor.is_none() || !finding.by.is_model(), "only detectors set floors: {finding:?}");
    }
    let judged: HashSet<u32> = judgement.verdict.judged.iter().copied().collect();
    assert!(judged.iter().all(known) && judged.len() == judgement.verdict.judged.len());
    assert_eq!(classifier.fingerprint(), fingerprint, "the same model and prompt");
}
