//! Deliver: claims what is due, sends it, settles.

use std::{sync::Arc, time::Duration};

use futures::{FutureExt, future::join_all, pin_mut, select_biased};

use super::{Pipeline, PipelineError, own::Trouble};
use crate::{
    Timestamp,
    decide::deliver::{self, Ended, Next, Turn},
    dedup::{Claim, Standing},
    error::chain,
    ledger::Committed,
    notifier::{Notifier, NotifyError, Receipt},
};

/// A channel that has failed is waited for so long; what is due later is left for the next run.
const PATIENCE: Duration = Duration::from_secs(10);

/// What deliver did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeliverReport {
    /// Messages that a channel has confirmed.
    pub sent: u64,
    /// Messages that another host had told.
    pub repeats: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// Messages that wait in channels that have failed.
    pub waiting: u64,
    /// Channels that will take nothing until somebody acts.
    pub broken: u64,
}

impl DeliverReport {
    /// Whether anything was tried: what waits and what is broken stays so for many runs.
    pub fn is_news(&self) -> bool {
        self.sent + self.repeats + self.failed > 0
    }

    /// Adds the numbers of another run.
    pub fn add(&mut self, other: Self) {
        self.sent += other.sent;
        self.repeats += other.repeats;
        self.failed += other.failed;
        self.waiting = other.waiting;
        self.broken = other.broken.max(self.broken);
    }
}

impl Pipeline {
    /// Sends what is due, and what becomes due before `until`, on all channels side by side.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be used.
    pub async fn deliver(&self, until: Timestamp) -> Result<DeliverReport, PipelineError> {
        let runs = self.notifiers.iter().map(|notifier| self.deliver_to(notifier, until));
        let mut report = DeliverReport::default();
        for run in join_all(runs).await {
            let run = run?;
            report.sent += run.sent;
            report.repeats += run.repeats;
            report.failed += run.failed;
            report.waiting += run.waiting;
            report.broken += run.broken;
        }
        Ok(report)
    }

    async fn deliver_to(
        &self,
        notifier: &Arc<dyn Notifier>,
        mut until: Timestamp,
    ) -> Result<DeliverReport, PipelineError> {
        let channel = notifier.channel();
        let query = deliver::query(&channel.name);
        let mut report = DeliverReport::default();
        loop {
            let snapshot = self.ledger.read(&query).await.map_err(PipelineError::Ledger)?;
            let now = self.env.now();
            if snapshot.channels.iter().any(|state| {
                state.row.name == channel.name
                    && state.row.destination == channel.destination
                    && state.row.broken.is_some()
            }) && snapshot.outbox.iter().any(|row| row.row.state.is_open())
            {
                report.broken = 1;
            }
            match deliver::next(&self.policy, &snapshot, channel, self.process, now, self.new_send()) {
                Next::Nothing { writes, at } => {
                    let _ = self.commit(writes).await?; // on a conflict the next run finds the same
                    match at.filter(|at| *at <= until) {
                        Some(at) => self.env.sleep_until(at.max(now.plus(Duration::from_millis(10)))).await,
                        None => {
                            let held = snapshot.channels.iter().any(|state| {
                                state.row.name == channel.name && (state.row.failures > 0 || state.row.broken.is_some())
                            });
                            let open = snapshot.outbox.iter().filter(|row| row.row.state.is_open()).count() as u64;
                            report.waiting = if held { open } else { 0 };
                            return Ok(report);
                        }
                    }
                }
                Next::Send(mut turn) => {
                    let writes = std::mem::take(&mut turn.writes);
                    if self.commit(writes).await? == Committed::Done {
                        let failed = report.failed;
                        self.take_turn(notifier, &turn, &mut report).await?;
                        if report.failed > failed {
                            until = until.min(self.env.now().plus(PATIENCE));
                        }
                    }
                }
            }
        }
    }

    /// D2 to D5.
    async fn take_turn(
        &self,
        notifier: &Arc<dyn Notifier>,
        turn: &Turn,
        report: &mut DeliverReport,
    ) -> Result<(), PipelineError> {
        let sending = &turn.sending.row;
        let claim = Claim {
            id: sending.id,
            epoch: turn.sending.version,
            channel: notifier.channel().destination,
            keys: &sending.keys,
            age: self.env.now().since(turn.event),
            window: sending.window,
            lease: turn.lease,
        };
        let asks = sending.asks_dedup && !sending.keys.is_empty();
        let reserved = if asks { self.reserve(&claim).await } else { Ok(None) };
        let ended = match reserved {
            Err(ended) => ended,
            // The machine slept, perhaps: somebody else may have it now.
            Ok(_) if turn.is_late(self.env.now()) => {
                if asks && let Err(error) = self.dedup.settle(&claim, &deliver::not_sent(turn)).await {
                    tracing::warn!(error = %chain(&error), "deduplication is degraded; its claim will lapse");
                }
                Ended::Wait(Duration::ZERO)
            }
            Ok(reserved) => {
                let sent = self.send(notifier, turn).await;
                if asks {
                    let outcome = deliver::outcome(turn, &sent, reserved, self.env.now());
                    if let Err(error) = self.dedup.settle(&claim, &outcome).await {
                        tracing::warn!(error = %chain(&error), "deduplication is degraded; its claim will lapse");
                    }
                }
                match sent {
                    Ok(receipt) => Ended::Delivered(receipt),
                    Err(error) => Ended::Failed(error),
                }
            }
        };
        self.settle_turn(notifier, turn, &ended).await?;
        match ended {
            Ended::Delivered(_) => report.sent += 1,
            Ended::Repeat(..) => report.repeats += 1,
            Ended::Wait(_) => {}
            Ended::Failed(error) => {
                report.failed += 1;
                tracing::warn!(channel = %notifier.channel().name, error = %chain(&error), "message not delivered");
                match &error {
                    NotifyError::Broken { reason, .. } => {
                        report.broken = 1;
                        let channel = notifier.channel().name.to_string();
                        self.report_trouble(&[Trouble::ChannelBroken { channel, reason: reason.clone() }]).await?;
                    }
                    NotifyError::Banned { retry_after, .. } => self.hold_vendor(notifier, *retry_after).await?,
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// D2. When the store has said that we speak, if it could be heard; or how it ends without a word.
    async fn reserve(&self, claim: &Claim<'_>) -> Result<Option<Timestamp>, Ended> {
        let asked_at = self.env.now();
        match self.dedup.reserve(claim).await {
            Ok(Standing::First { at }) => Ok(Some(at)),
            Ok(Standing::Delivered { receipt }) => Err(Ended::Delivered(receipt)),
            Ok(Standing::Repeat { receipt, ago }) => Err(Ended::Repeat(receipt, asked_at.minus(ago))),
            Ok(Standing::Pending { wait }) => Err(Ended::Wait(wait)),
            Err(error) => {
                tracing::warn!(error = %chain(&error), "deduplication is degraded; rather twice than not at all");
                Ok(None)
            }
        }
    }

    /// D3. A send that takes longer than the channel's longest is cut off, before its claim lapses.
    async fn send(&self, notifier: &Arc<dyn Notifier>, turn: &Turn) -> Result<Receipt, NotifyError> {
        let sending = &turn.sending.row;
        let channel = notifier.channel();
        let mut message = sending.message.clone();
        self.redactor.redact_message(&mut message);
        let send = notifier.send(&message, sending.form, sending.amend.as_ref()).fuse();
        let late = self.env.sleep_until(self.env.now().plus(channel.longest_send)).fuse();
        pin_mut!(send, late);
        select_biased! {
            sent = send => sent,
            () = late => Err(NotifyError::Unreachable {
                channel: channel.name.clone(),
                ambiguous: true,
                retry_after: None,
                cause: format!("no answer within {} s", channel.longest_send.as_secs()).into(),
            }),
        }
    }

    /// D5: read again on a conflict with the incidents, which others may change meanwhile; given up when the turn itself
    /// is no longer ours.
    async fn settle_turn(&self, notifier: &Arc<dyn Notifier>, turn: &Turn, ended: &Ended) -> Result<(), PipelineError> {
        let query = deliver::query(&notifier.channel().name);
        let random = self.env.random();
        self.decide(&query, |snapshot| {
            let ours = snapshot
                .sendings
                .iter()
                .any(|sending| sending.row.id == turn.sending.row.id && sending.version == turn.sending.version);
            ours.then(|| (deliver::settle(&self.policy, snapshot, turn, ended, self.env.now(), random), ()))
        })
        .await
        .map(|_| ())
    }

    async fn hold_vendor(&self, notifier: &Arc<dyn Notifier>, wait: Duration) -> Result<(), PipelineError> {
        let channel = notifier.channel();
        self.decide(&deliver::query(&channel.name), |snapshot| {
            Some((deliver::hold_vendor(snapshot, &self.policy, channel.vendor, wait, self.env.now()), ()))
        })
        .await
        .map(|_| ())
    }
}
