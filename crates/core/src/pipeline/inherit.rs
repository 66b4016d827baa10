//! What a process owns in the ledger, and what becomes of it when the process ends: given back, or taken by whoever knows
//! that it is gone.

use futures::future::join_all;

use super::{Pipeline, PipelineError};
use crate::{
    decide::{deliver, ingest},
    error::chain,
    ledger::{Job, JobState, Jobs, ProcessId, Query, Versioned, Write},
    source::SourceId,
};

/// Tells of a process whether it is known to have ended.
type IsGone<'a> = &'a (dyn Fn(ProcessId) -> bool + Send + Sync);

impl Pipeline {
    /// Takes what processes own that are gone, so that nobody waits until it lapses: sources and their pasts, what was being
    /// judged, which waits again, and what was being said, which is said again and marked as a possible repeat. Answers how
    /// much that was.
    ///
    /// A process that is at work all the same loses nothing but its commits; a message that it was sending may be a surplus.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be used.
    pub async fn inherit(&self, is_gone: IsGone<'_>) -> Result<usize, PipelineError> {
        let is_gone = |process: ProcessId| process != self.process && is_gone(process);
        let mut taken = self.take_jobs(&is_gone).await?;
        for id in self.ownable() {
            taken += self.take_source(&id, &is_gone).await?;
        }
        Ok(taken + self.take_channels(&is_gone).await?)
    }

    /// Gives all sources back, so that whoever comes next need not wait until they lapse.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be used.
    pub async fn disown(&self) -> Result<(), PipelineError> {
        let given = self.ownable().into_iter().map(|id| async move {
            self.decide(&Query { source: Some(id.clone()), ..Query::default() }, |snapshot| {
                Some((ingest::disown(snapshot, &id, self.process), ()))
            })
            .await
            .map(|_| ())
        });
        join_all(given).await.into_iter().collect()
    }

    /// Sources, and those that `backfill` reads their pasts into.
    fn ownable(&self) -> Vec<SourceId> {
        self.sources.iter().map(|slot| slot.source.id()).flat_map(|id| [id.clone(), Self::past_of(id)]).collect()
    }

    async fn take_source(&self, id: &SourceId, is_gone: IsGone<'_>) -> Result<usize, PipelineError> {
        let query = Query { source: Some(id.clone()), ..Query::default() };
        let taken = self.decide(&query, |snapshot| {
            let owner = snapshot.source.as_ref()?.row.owner.filter(|owner| is_gone(*owner))?;
            Some((ingest::disown(snapshot, id, owner), 1))
        });
        Ok(taken.await?.unwrap_or(0))
    }

    async fn take_jobs(&self, is_gone: IsGone<'_>) -> Result<usize, PipelineError> {
        let query = Query { jobs: Jobs::Open { limit: usize::MAX >> 1 }, ..Query::default() };
        let taken = self.decide(&query, |snapshot| {
            let held =
                |job: &&Versioned<Job>| matches!(job.row.state, JobState::Leased { owner, .. } if is_gone(owner));
            let waiting = JobState::Waiting { not_before: self.env.now() };
            let writes: Vec<_> = snapshot
                .jobs
                .iter()
                .filter(held)
                .map(|job| {
                    let row = Job { state: waiting.clone(), ..job.row.clone() };
                    Write::Job(Versioned { version: job.version, row })
                })
                .collect();
            let taken = writes.len();
            (taken > 0).then_some((writes, taken))
        });
        Ok(taken.await?.unwrap_or(0))
    }

    async fn take_channels(&self, is_gone: IsGone<'_>) -> Result<usize, PipelineError> {
        let mut taken = 0;
        for notifier in &self.notifiers {
            let channel = notifier.channel();
            let query = deliver::query(&channel.name);
            let freed = self.decide(&query, |snapshot| {
                let state = snapshot.channels.iter().find(|state| state.row.name == channel.name)?;
                let (owner, _) = state.row.lease.filter(|(owner, _)| is_gone(*owner))?;
                let freed = deliver::abandoned(snapshot, channel, owner, self.env.now())?;
                Some((freed.writes, freed.sending))
            });
            let Some(sending) = freed.await? else { continue };
            taken += 1;
            if let Some(sending) = sending
                && sending.row.asks_dedup
                && !sending.row.keys.is_empty()
                && let Err(error) = self.dedup.settle(&deliver::claim_of(&sending, channel), &deliver::UNKNOWN).await
            {
                tracing::warn!(error = %chain(&error), "deduplication is degraded; its claim will lapse");
            }
        }
        Ok(taken)
    }
}
