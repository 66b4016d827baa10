//! What senders should hear about from somebody: told through the pipeline, once a minute per sender and kind at most.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use logwarden_core::pipeline::Trouble;
use tokio::sync::mpsc::Sender;

const AGAIN: Duration = Duration::from_secs(60);
const MAX_SENDERS: usize = 1000;

/// Hands troubles to the task that tells them; requests never wait for it.
#[derive(Debug)]
pub(crate) struct Troubles {
    told: Sender<Trouble>,
    last: Mutex<HashMap<(&'static str, String), Instant>>,
}

impl Troubles {
    /// Hands over through `told`.
    pub(crate) fn new(told: Sender<Trouble>) -> Self {
        Self { told, last: Mutex::default() }
    }

    /// Tells that something of `sender` could not be read. `false` when there is no room to tell it.
    pub(crate) fn unreadable(&self, sender: &str, reason: &str) -> bool {
        self.tell("unreadable", sender, || Trouble::Unreadable { sender: sender.to_owned(), reason: reason.to_owned() })
    }

    /// Tells that lines of `sender` are lost.
    pub(crate) fn lost(&self, kind: &'static str, sender: &str, reason: &str) -> bool {
        self.tell(kind, sender, || Trouble::LinesMissing { subject: sender.to_owned(), reason: reason.to_owned() })
    }

    fn tell(&self, kind: &'static str, sender: &str, trouble: impl FnOnce() -> Trouble) -> bool {
        let now = Instant::now();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (kind, sender.to_owned());
        if last.get(&key).is_some_and(|at| now.saturating_duration_since(*at) < AGAIN) {
            return true;
        }
        if last.len() >= MAX_SENDERS {
            last.clear();
        }
        let told = self.told.try_send(trouble()).is_ok();
        if told {
            last.insert(key, now);
        }
        told
    }
}
