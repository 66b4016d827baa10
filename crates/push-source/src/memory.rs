//! Memory for bodies: a budget for all, and a share of it for each client, so that one cannot take what others need.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// One client's share is this part of all.
const SHARE: usize = 4;
/// Clients remembered before those that hold nothing are forgotten.
const MANY: usize = 1024;

/// The budget, in kibibytes.
#[derive(Debug)]
pub(crate) struct Memory {
    all: Arc<Semaphore>,
    size: usize,
    clients: Mutex<HashMap<String, Weak<Semaphore>>>,
}

/// Memory that is set aside until this is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    _of_all: OwnedSemaphorePermit,
    _of_own: OwnedSemaphorePermit,
}

fn kib(bytes: usize) -> usize {
    bytes.div_ceil(1024)
}

impl Memory {
    /// So many bytes.
    pub(crate) fn new(bytes: usize) -> Self {
        let size = kib(bytes).max(SHARE);
        Self { all: Arc::new(Semaphore::new(size)), size, clients: Mutex::default() }
    }

    /// Bytes that are held.
    pub(crate) fn held(&self) -> u64 {
        (self.size - self.all.available_permits()) as u64 * 1024
    }

    /// Waits until there is room for so many bytes of a client; more than its share are its share.
    pub(crate) async fn hold(&self, client: &str, bytes: usize) -> Option<Held> {
        let wanted = kib(bytes).clamp(1, self.size / SHARE) as u32;
        let own = self.share(client).acquire_many_owned(wanted).await.ok()?;
        let all = self.all.clone().acquire_many_owned(wanted).await.ok()?;
        Some(Held { _of_all: all, _of_own: own })
    }

    fn share(&self, client: &str) -> Arc<Semaphore> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = clients.get(client).and_then(Weak::upgrade) {
            return share;
        }
        if clients.len() >= MANY {
            clients.retain(|_, share| share.strong_count() > 0);
        }
        let share = Arc::new(Semaphore::new(self.size / SHARE));
        clients.insert(client.to_owned(), Arc::downgrade(&share));
        share
    }
}

#[cfg(test)]
mod tests {
    use std::{future::Future, pin::pin, task::Poll};

    use super::*;

    fn now<T>(future: impl Future<Output = T>) -> Option<T> {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match pin!(future).poll(&mut context) {
            Poll::Ready(done) => Some(done),
            Poll::Pending => None,
        }
    }

    #[test]
    fn one_client_cannot_take_what_others_need() {
        let memory = Memory::new(32 << 20);
        let greedy: Vec<_> = (0..4).filter_map(|_| now(memory.hold("a", 2 << 20))).collect();
        assert_eq!((greedy.len(), memory.held()), (4, 8 << 20));
        assert!(now(memory.hold("a", 1)).is_none(), "its share is taken");
        let large = now(memory.hold("b", 100 << 20)).flatten();
        assert!(large.is_some(), "what is too large for a share takes all of it");
        drop((greedy, large));
        assert_eq!(memory.held(), 0);
    }

    #[test]
    fn clients_that_hold_nothing_are_forgotten() {
        let memory = Memory::new(32 << 20);
        for number in 0..10 * MANY {
            assert!(now(memory.hold(&number.to_string(), 1024)).is_some());
        }
        assert!(memory.clients.lock().unwrap().len() <= MANY);
    }
}
