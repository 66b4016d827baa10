//! A channel that remembers what it was sent.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use logwarden_detectors::Severity;

use crate::{
    LineId,
    error::BoxError,
    message::{Body, Message, Occasion},
    notifier::{Channel, ChannelHash, Form, Notifier, NotifyError, Receipt},
};

/// Remembers what it was sent; fails as often as it is told to.
///
/// Stricter than a real channel: it refuses a message about nothing, and amends only what it gave a receipt for.
#[derive(Debug)]
pub struct MemoryNotifier {
    channel: Channel,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    attempts: u64,
    sent: Vec<(Message, Option<Receipt>)>,
    receipts: Vec<Receipt>,
    errors: VecDeque<NotifyError>,
}

impl MemoryNotifier {
    /// A channel of that name that takes everything.
    pub fn new(name: &str, amends: bool) -> Self {
        let channel = Channel {
            name: name.into(),
            destination: ChannelHash(LineId::of(&[name.as_bytes()]).bits()),
            vendor: "test",
            min_severity: Severity::Low,
            amends,
            longest_send: Duration::from_secs(15),
            gap: Duration::ZERO,
            per_minute: 1000,
        };
        Self { channel, state: Mutex::default() }
    }

    /// What was taken, with the receipts of what was amended.
    pub fn sent(&self) -> Vec<(Message, Option<Receipt>)> {
        self.state().sent.clone()
    }

    /// Why each message about incidents was sent.
    ///
    /// # Panics
    ///
    /// When one was about something else.
    pub fn occasions(&self) -> Vec<Occasion> {
        let occasion = |(message, _): &(Message, _)| match &message.body {
            Body::Incidents { occasion, .. } => *occasion,
            other => panic!("{other:?}"),
        };
        self.state().sent.iter().map(occasion).collect()
    }

    /// Calls so far.
    pub fn attempts(&self) -> u64 {
        self.state().attempts
    }

    /// The next call without an error of its own fails with this one.
    pub fn fail(&self, error: NotifyError) {
        self.state().errors.push_back(error);
    }

    /// The next call is refused for a minute.
    pub fn limit(&self) {
        let channel = self.channel.name.clone();
        self.fail(NotifyError::RateLimited { channel, retry_after: Duration::from_secs(60) });
    }

    /// The next `times` calls do not get through.
    pub fn cut(&self, times: usize) {
        for _ in 0..times {
            let (channel, cause) = (self.channel.name.clone(), BoxError::from("connection refused"));
            self.fail(NotifyError::Unreachable { channel, ambiguous: false, retry_after: None, cause });
        }
    }

    /// From now on all is well again.
    pub fn heal(&self) {
        self.state().errors.clear();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Notifier for MemoryNotifier {
    fn channel(&self) -> &Channel {
        &self.channel
    }

    async fn send(&self, message: &Message, _: Form, amend: Option<&Receipt>) -> Result<Receipt, NotifyError> {
        let mut state = self.state();
        state.attempts += 1;
        if let Some(error) = state.errors.pop_front() {
            return Err(error);
        }
        let channel = self.channel.name.clone();
        if matches!(&message.body, Body::Incidents { incidents, .. } if incidents.is_empty()) {
            return Err(NotifyError::ContentRefused { channel, reason: "it is about no incident".to_owned() });
        }
        let amend = amend.filter(|_| self.channel.amends);
        if amend.is_some_and(|receipt| !state.receipts.contains(receipt)) {
            return Err(NotifyError::NotAmendable { channel, reason: "unknown message".to_owned() });
        }
        state.sent.push((message.clone(), amend.cloned()));
        let receipt = amend.cloned().unwrap_or_else(|| Receipt(state.sent.len().to_string()));
        state.receipts.push(receipt.clone());
        Ok(receipt)
    }
}
