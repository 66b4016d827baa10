//! Pushed lines: what has been spooled is ingested soon after it arrives, while judge and deliver run beside.

use std::{future::Future, time::Duration};

use futures::{FutureExt, StreamExt, channel::mpsc, lock::Mutex, pin_mut, select_biased};

use super::{IDLE, PassReport, Pipeline, PipelineError, SourceOutcome};
use crate::{
    error::chain,
    ledger::{LedgerError, Write},
};

/// How often time alone is looked at: what has gone quiet, what is too old to keep.
const TICK: Duration = Duration::from_secs(30);
/// How long reading may go on until it is reported.
const ROUND: Duration = Duration::from_secs(5);
/// How long to wait when the state or the source cannot be used.
const AGAIN: Duration = Duration::from_secs(2);

impl Pipeline {
    /// Ingests the source with that number whenever `arrived` resolves, and judges and delivers beside, until `stop`
    /// resolves; what has arrived by then is still ingested, and what is decided and due goes out, within `grace`.
    ///
    /// `report` is called at least every half minute, also when there is nothing to say.
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
        let stop = stop.shared();
        let stages = async {
            loop {
                // What a detector has found is on its way at once, not at the next look.
                let (found, finds) = mpsc::channel(1);
                let finds = Mutex::new(finds);
                let idle = || async {
                    let mut finds = finds.lock().await;
                    let (found, late) = (finds.next().fuse(), self.env.sleep_until(self.env.now().plus(IDLE)).fuse());
                    pin_mut!(found, late);
                    select_biased! { _ = found => {}, () = late => {} }
                };
                let folding = self.keep_folding(number, &arrived, found, report).fuse();
                let judging = self.keep_judging(report).fuse();
                let delivering = self.keep_delivering(idle, report, stop.clone()).fuse();
                pin_mut!(folding, judging, delivering);
                let ended = select_biased! {
                    ended = delivering => ended,
                    error = folding => Err(error),
                    error = judging => Err(error),
                };
                let Err(error) = ended else { return Ok(()) };
                if matches!(error, PipelineError::Ledger(LedgerError::Newer { .. })) {
                    return Err(error);
                }
                tracing::warn!(error = %chain(&error), "the state cannot be used; trying again");
                report(PassReport::default());
                if self.before(self.env.now().plus(AGAIN), stop.clone()).await.is_some() {
                    return Ok(());
                }
            }
        };
        let until = self.until_stopped(Box::pin(stages), stop.clone(), grace).await?;
        let last = async {
            // Much may wait to be folded; what is found in it must still be told.
            let ingest = vec![self.ingest(number, until.minus(grace / 2)).await?];
            let deliver = self.deliver(until).await?;
            Ok(PassReport { ingest, deliver, ..PassReport::default() })
        };
        if let Some(last) = self.before(until, last).await {
            report(last?);
        }
        self.disown().await
    }

    async fn keep_folding<A>(
        &self,
        number: usize,
        arrived: &(impl Fn() -> A + Send + Sync),
        mut found: mpsc::Sender<()>,
        report: &(dyn Fn(PassReport) + Send + Sync),
    ) -> PipelineError
    where
        A: Future<Output = ()> + Send,
    {
        let mut tick = self.env.now();
        loop {
            // After an outage there may be much to do: whoever looks whether we are alive hears of it in between.
            let ingest = match self.ingest(number, self.env.now().plus(ROUND)).await {
                Ok(ingest) => ingest,
                Err(error) => return error,
            };
            let again = match ingest.outcome {
                SourceOutcome::Busy { .. } | SourceOutcome::Failed { .. } => Some(self.env.now().plus(AGAIN)),
                SourceOutcome::OutOfTime => Some(self.env.now()),
                _ => None,
            };
            if ingest.opened + ingest.joined > 0 {
                let _ = found.try_send(()); // one that is not heard yet says it all
            }
            report(PassReport { ingest: vec![ingest], ..PassReport::default() });
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
