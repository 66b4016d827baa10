//! What every classifier promises, as functions that each implementation runs against its server's double.

use std::collections::HashSet;

use futures::FutureExt;

use crate::{classifier::Classifier, digest::Digest};

/// A classifier judges what it was shown and nothing else, says who it is without being asked a question, and can be
/// stopped at any time. The digest must have rows, and the classifier be able to answer.
///
/// # Panics
///
/// When the classifier breaks the contract.
pub async fn judges_what_it_was_shown(classifier: &dyn Classifier, digest: &Digest) {
    let capacity = classifier.capacity();
    assert!(capacity.rows > 0 && capacity.row_tokens > 0 && capacity.chars_per_token > 0.0, "{capacity:?}");
    let fingerprint = classifier.fingerprint();
    assert!(!fingerprint.is_empty());

    // Whoever asked has left.
    drop(classifier.classify(digest).now_or_never());

    let judgement = classifier.classify(digest).await.unwrap_or_else(|error| panic!("{}", crate::error::chain(&error)));
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
