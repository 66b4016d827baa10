//! Places for large bodies, which are decoded while they arrive: few, and one for each client, so that slow senders of
//! large bodies hold up each other and nobody else.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// The places.
#[derive(Debug)]
pub(crate) struct Streams {
    places: Arc<Semaphore>,
    clients: Arc<Clients>,
}

#[derive(Debug, Default)]
struct Clients {
    busy: Mutex<HashSet<String>>,
    left: Notify,
}

/// A place to decode a body, until this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    _place: OwnedSemaphorePermit,
    _seat: Option<Seat>,
}

#[derive(Debug)]
struct Seat {
    clients: Arc<Clients>,
    client: String,
}

impl Place {
    /// A place for a small body.
    pub(crate) fn of_decoder(place: OwnedSemaphorePermit) -> Self {
        Self { _place: place, _seat: None }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.clients.busy.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.client);
        self.clients.left.notify_waiters();
    }
}

impl Streams {
    /// So many places.
    pub(crate) fn new(places: usize) -> Self {
        Self { places: Arc::new(Semaphore::new(places)), clients: Arc::default() }
    }

    /// Waits for a place.
    pub(crate) async fn take(&self, client: &str) -> Option<Place> {
        let seat = loop {
            let mut left = std::pin::pin!(self.clients.left.notified());
            left.as_mut().enable();
            let is_free = self.clients.busy.lock().unwrap_or_else(PoisonError::into_inner).insert(client.to_owned());
            if is_free {
                break Seat { clients: self.clients.clone(), client: client.to_owned() };
            }
            left.await;
        };
        let place = self.places.clone().acquire_owned().await.ok()?;
        Some(Place { _place: place, _seat: Some(seat) })
    }
}
