//! Pushed lines: what has been spooled is ingested soon after it arrives, while judge and deliver run beside.

use std::{future::Future, time::Duration};

use futures::{FutureExt, pin_mut, select_biased};

use super::{PassReport, Pipeline, PipelineError, SourceOutcome};
use crate::{
    Timestamp,
    error::chain,
    ledger::{LedgerError, Write},
};

/// How often time alone is looked at: what has gone quiet, what is too old to keep.
const TICK: Duration = Duration::from_secs(30);
/// How long to wait when the state or the source cannot be used.
const AGAIN: Duration = Duration::from_secs(2);

impl Pipeline {
    /// Ingests the source with that number whenever `arrived` resolves, and judges and delivers beside, until `stop`
    /// resolves; what is decided and due then still goes out, within `grace`.
    ///
    /// A state that cannot be used for a while (a full disk) is tried again and again: what has been acknowledged waits
    /// in the spool.
    ///
    /// # Errors
    ///
    /// When the state was written by a newer version, or cannot be used at the end.
    ///
    /// # Panics
    ///
    /// When there is no such source.
    pub async fn watch_pushed<A>(
        &self,
        number: usize,
        arrived: impl Fn() -> A + Send + Sync,
        grace: Duration,
        report: &(dyn Fn(PassReport) + Send + Sync),
        stop: impl Future<Output = ()> + Send,
    ) -> Result<(), PipelineError>
    where
        A: Future<Output = ()> + Send,
    {
        let stages = async {
            loop {
                let folding = self.keep_folding(number, &arrived, report).fuse();
                let (judging, delivering) = (self.keep_judging(report).fuse(), self.keep_delivering(report).fuse());
                pin_mut!(folding, judging, delivering);
                let error =
                    select_biased! { error = delivering => error, error = folding => error, error = judging => error };
                if matches!(error, PipelineError::Ledger(LedgerError::Newer { .. })) {
                    return error;
                }
                tracing::warn!(error = %chain(&error), "the state cannot be used; trying again");
                self.env.sleep_until(self.env.now().plus(AGAIN)).await;
            }
        };
        let (stop, stages) = (stop.fuse(), stages.fuse());
        pin_mut!(stop, stages);
        select_biased! {
            () = stop => {}
            error = stages => return Err(error),
        }
        let last = self.deliver(self.env.now().plus(grace)).await?;
        report(PassReport { deliver: last, ..PassReport::default() });
        self.disown().await
    }

    async fn keep_folding<A>(
        &self,
        number: usize,
        arrived: &(impl Fn() -> A + Send + Sync),
        report: &(dyn Fn(PassReport) + Send + Sync),
    ) -> PipelineError
    where
        A: Future<Output = ()> + Send,
    {
        let mut tick = self.env.now();
        loop {
            let ingest = match self.ingest(number, Timestamp::MAX).await {
                Ok(ingest) => ingest,
                Err(error) => return error,
            };
            let again = match ingest.outcome {
                SourceOutcome::Busy { .. } | SourceOutcome::Failed { .. } => Some(self.env.now().plus(AGAIN)),
                _ => None,
            };
            if ingest.read > 0 || again.is_some() {
                report(PassReport { ingest: vec![ingest], ..PassReport::default() });
            }
            if self.env.now() >= tick {
                tick = self.env.now().plus(TICK);
                let done = async {
                    self.tick().await?;
                    self.commit(vec![Write::Prune(self.env.now())]).await
                };
                if let Err(error) = done.await {
                    return error;
                }
            }
            match again {
                Some(again) => self.env.sleep_until(again).await,
                None => {
                    let (arrived, idle) = (arrived().fuse(), self.env.sleep_until(tick).fuse());
                    pin_mut!(arrived, idle);
                    select_biased! { () = arrived => {}, () = idle => {} }
                }
            }
        }
    }
}
