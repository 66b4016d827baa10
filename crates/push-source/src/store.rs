//! From a body to disk: decodes it, commits its lines to the spool, and knows one that was sent before.

use std::{
    cell::{Cell, RefCell},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use hyper::StatusCode;
use logwarden_core::{
    Timestamp,
    error::chain,
    ledger::{BatchId, Commit, CommitId, Committed, LedgerError, Query, SpoolRow, Write},
};
use tokio::{runtime::Handle, time};

use crate::{
    answer::Answer,
    batch::{Bounds, Part},
    body::Pieces,
    decode::{Decoded, Protocol, Unread},
    metrics::Outcome,
    quarantine,
    receiver::Shared,
    sent::{Beginning, Sent},
    window::Failure,
};

/// Why lines are not on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// There is no room.
    Full,
    /// The state cannot be used.
    Unusable,
    /// Somebody else was quicker, with what we cannot tell.
    Busy,
}

/// What became of lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stored {
    /// They are on disk now.
    New,
    /// They were there before.
    Repeat,
}

/// What a decoder has done.
struct Work {
    last: Option<Part>,
    bad: Vec<Unread>,
    lines: u64,
    new_lines: u64,
    repeated_lines: u64,
    cut: u64,
    odd_times: u64,
    refused: Option<Refused>,
}

/// Stores a body, and says what to answer.
pub(crate) async fn store(shared: &Arc<Shared>, sent: Arc<Sent>, pieces: Pieces) -> Answer {
    let now = shared.env.now();
    let working = {
        let (shared, sent) = (shared.clone(), sent.clone());
        tokio::task::spawn_blocking(move || decode(&shared, &sent, pieces, now))
    };
    let work = match working.await {
        Ok(Ok(work)) => work,
        Ok(Err(Failure::TooLarge)) => return too_large(shared, &sent.client),
        Ok(Err(Failure::Cut)) => return Answer::Close,
        Ok(Err(Failure::Busy | Failure::Broken(_))) => {
            shared.metrics.count(Outcome::Overloaded);
            return Answer::again(2, "there is no memory for a body like this at the moment");
        }
        Err(_) => return Answer::again(30, "shutting down"),
    };
    shared.rates.charge(&sent.client, [0, 0, work.lines], Instant::now());
    if let Some(refused) = work.refused {
        return refuse(shared, refused);
    }
    let reason = work.bad.first().map(|unread| unread.reason.clone());
    let mut more: Vec<Write> =
        work.bad.into_iter().map(|unread| Write::Quarantine(quarantine::row(&sent, now, unread))).collect();
    for (name, count) in [
        ("push_lines_cut", work.cut),
        ("push_odd_times", work.odd_times),
        ("push_unreadable", u64::from(reason.is_some())),
    ] {
        if count > 0 {
            more.push(Write::Count(name.to_owned(), count));
        }
    }
    let stored = match (work.last, more.is_empty()) {
        (None, true) if work.lines == 0 => {
            shared.metrics.count(Outcome::Empty);
            return Answer::Accepted(0);
        }
        (None, true) => Ok(Stored::New),
        (last, _) => commit(shared, last, now, more).await,
    };
    let is_new = match stored {
        Ok(stored) => stored == Stored::New || work.new_lines > 0,
        Err(refused) => return refuse(shared, refused),
    };
    match reason {
        Some(reason) if is_new => {
            shared.metrics.count(Outcome::Quarantined);
            shared.tell(shared.troubles.unreadable(&sent.client, &reason));
            if work.lines == 0 && sent.protocol == Protocol::Otlp {
                return Answer::Unreadable;
            }
        }
        _ if is_new => shared.metrics.count(Outcome::Stored),
        _ => shared.metrics.count(Outcome::Repeat),
    }
    debug_assert!(work.repeated_lines <= work.lines);
    Answer::Accepted(work.lines)
}

fn refuse(shared: &Shared, refused: Refused) -> Answer {
    match refused {
        Refused::Full => {
            shared.metrics.count(Outcome::Full);
            let reason = "there is no room until some of what waits is folded or the disk has space again; who does not try again \
                          loses lines";
            shared.tell(shared.troubles.lost("full", "those who push", reason));
            Answer::again(30, "the spool is full")
        }
        Refused::Unusable => {
            shared.unusable.store(true, Ordering::Relaxed);
            shared.metrics.count(Outcome::Unavailable);
            Answer::again(10, "the state cannot be used")
        }
        Refused::Busy => {
            shared.metrics.count(Outcome::Unavailable);
            Answer::again(2, "busy")
        }
    }
}

/// Whether a batch could be stored now. After one that could not be, by trying: whoever sends no more because we were not
/// ready must be told when we are.
pub(crate) async fn is_possible(shared: &Shared) -> bool {
    if !shared.unusable.load(Ordering::Relaxed) {
        return shared.ledger.read(&Query::default()).await.is_ok();
    }
    let probe = Commit { id: CommitId(random(shared)), writes: vec![Write::Count("push_repeats".to_owned(), 0)] };
    let stored = shared.ledger.commit(&probe).await.is_ok();
    shared.unusable.store(!stored, Ordering::Relaxed);
    stored
}

fn random(shared: &Shared) -> u128 {
    u128::from(shared.env.random()) << 64 | u128::from(shared.env.random())
}

/// Counts and tells that a body is refused for its size.
pub(crate) fn too_large(shared: &Shared, client: &str) -> Answer {
    shared.metrics.count(Outcome::TooLarge);
    let reason = "a request was larger than the limits allow; its lines are lost. Send smaller batches, or raise `receiver.max_body_mib`";
    shared.tell(shared.troubles.lost("large", client, reason));
    Answer::Refused { status: StatusCode::PAYLOAD_TOO_LARGE, why: "the batch is too large" }
}

/// Decodes, in a thread that may block. Parts that are full are stored at once: what is in memory has a bound, however
/// large a body is. One that is sent again after it broke off finds them known.
fn decode(shared: &Arc<Shared>, sent: &Sent, pieces: Pieces, now: Timestamp) -> Result<Work, Failure> {
    let limits = &shared.limits;
    let bounds = Bounds { records: limits.records, received: now };
    let runtime = Handle::current();
    let beginning = Beginning::default();
    let (new_lines, repeated_lines, refused) = (Cell::new(0), Cell::new(0), Cell::new(None));
    // Slow senders of large bodies hold up each other only.
    let large_place = if pieces.is_arriving() { &shared.large_arriving } else { &shared.large };
    let large = RefCell::new(None);
    let leave = || {
        if large.borrow().is_none() {
            let waiting = async { time::timeout(limits.patience, large_place.clone().lock_owned()).await };
            *large.borrow_mut() = runtime.block_on(waiting).ok();
        }
        large.borrow().is_some()
    };
    let sink = |part: Part| {
        let lines = part.lines;
        match runtime.block_on(commit(shared, Some(part), now, Vec::new())) {
            Ok(Stored::New) => new_lines.set(new_lines.get() + lines),
            Ok(Stored::Repeat) => repeated_lines.set(repeated_lines.get() + lines),
            Err(reason) => refused.set(Some(reason)),
        }
        refused.get().is_none()
    };
    let read = || sent.read(pieces, &beginning, limits.decoded_bytes, bounds, &leave, Box::new(sink));
    // A decoder that panics is our fault: the body is kept, and the sender not stopped by it.
    let decoded = catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| {
        let bad = vec![beginning.unread("decoding it failed".to_owned())];
        Ok(Decoded { batch: sent.batch(bounds, Box::new(|_| false)), bad })
    });
    let mut decoded = decoded?;
    let batch = &mut decoded.batch;
    let (last, lines, cut, odd_times) = (batch.finish(), batch.lines, batch.cut, batch.odd_times);
    let bad = decoded.bad;
    drop(decoded.batch);
    Ok(Work {
        last,
        bad,
        lines,
        new_lines: new_lines.get(),
        repeated_lines: repeated_lines.get(),
        cut,
        odd_times,
        refused: refused.get(),
    })
}

/// Commits a part and what else is to be written with it. A conflict means that the part is known, which is looked up all
/// the same before the sender may forget it.
pub(crate) async fn commit(
    shared: &Shared,
    part: Option<Part>,
    now: Timestamp,
    mut writes: Vec<Write>,
) -> Result<Stored, Refused> {
    let lines = part.as_ref().map_or(0, |part| part.lines);
    let batch = part.as_ref().map(|part| part.id.unwrap_or_else(|| BatchId(random(shared))));
    if let (Some(part), Some(batch)) = (part, batch) {
        writes.push(Write::Spool(SpoolRow { ordinal: 0, batch, at: now, lines, body: part.body }));
        writes.push(Write::Count("push_lines".to_owned(), lines));
    }
    let commit = Commit { id: CommitId(random(shared)), writes };
    let mut committed = shared.ledger.commit(&commit).await;
    if let Err(LedgerError::Failed { .. }) = committed {
        // Whether it was executed is unknown; under the same name it is not executed twice.
        committed = shared.ledger.commit(&commit).await;
    }
    match committed {
        Ok(Committed::Done) => {
            if lines > 0 {
                shared.metrics.lines.fetch_add(lines, Ordering::Relaxed);
                shared.source.spooled(lines);
            }
            Ok(Stored::New)
        }
        Ok(Committed::Conflict) => {
            let query = Query { batches: batch.into_iter().collect(), ..Query::default() };
            let known = shared.ledger.read(&query).await.is_ok_and(|snapshot| !snapshot.batches.is_empty());
            if !known {
                return Err(Refused::Busy);
            }
            let counted =
                vec![Write::Count("push_repeats".to_owned(), 1), Write::Count("push_lines_repeated".to_owned(), lines)];
            let _ = shared.ledger.commit(&Commit { id: CommitId(random(shared)), writes: counted }).await;
            Ok(Stored::Repeat)
        }
        Err(LedgerError::Full { .. }) => Err(Refused::Full),
        Err(error) => {
            tracing::warn!(error = %chain(&error), "a batch could not be stored");
            Err(Refused::Unusable)
        }
    }
}
