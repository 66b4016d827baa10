//! Which models are loaded, how, and who waits for what.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::{Mutex as AsyncMutex, Notify, OwnedSemaphorePermit, Semaphore};

use super::{Model, Shared};

/// What a runner was started with: another value means another start.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Launch {
    pub(super) num_ctx: u32,
    pub(super) shift: bool,
    pub(super) other: String,
}

#[derive(Clone, Debug)]
pub(super) struct Runner {
    pub(super) launch: Launch,
    pub(super) permits: Arc<Semaphore>,
    pub(super) parallel: u32,
    /// `None` for ever.
    pub(super) keep: Option<Duration>,
    /// By the server's clock; `None` for ever.
    pub(super) expires: Option<Duration>,
}

impl Runner {
    fn idle(&self) -> bool {
        self.permits.available_permits() == self.parallel as usize
    }

    fn rest(&mut self, clock: Duration) {
        self.expires = self.keep.map(|keep| clock.saturating_add(keep));
    }
}

#[derive(Default)]
pub(super) struct Runners {
    loaded: Mutex<BTreeMap<String, Runner>>,
    loader: AsyncMutex<()>,
    waiting: Mutex<usize>,
    freed: Notify,
}

/// Why there is no runner.
pub(super) struct Busy;

/// The right to use a runner.
pub(super) struct Seat {
    pub(super) load: Duration,
    shared: Arc<Shared>,
    name: String,
    permit: Option<OwnedSemaphorePermit>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.permit.take();
        let clock = self.shared.lock().clock;
        let mut loaded = self.shared.runners.loaded();
        if let Some(runner) = loaded.get_mut(&self.name) {
            runner.rest(clock);
            if runner.keep == Some(Duration::ZERO) && runner.idle() {
                loaded.remove(&self.name);
            }
        }
        drop(loaded);
        self.shared.runners.freed.notify_waiters();
    }
}

struct InQueue<'a>(&'a Mutex<usize>);

impl Drop for InQueue<'_> {
    fn drop(&mut self) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *waiting -= 1;
    }
}

impl Runners {
    fn loaded(&self) -> MutexGuard<'_, BTreeMap<String, Runner>> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is loaded at this time.
    pub(super) fn list(&self, clock: Duration) -> Vec<(String, Runner)> {
        let mut loaded = self.loaded();
        loaded.retain(|_, runner| !runner.idle() || runner.expires.is_none_or(|at| at > clock));
        loaded.iter().map(|(name, runner)| (name.clone(), runner.clone())).collect()
    }

    pub(super) fn unload(&self, name: &str) {
        self.loaded().remove(name);
        self.freed.notify_waiters();
    }

    pub(super) fn unload_all(&self) {
        self.loaded().clear();
        self.freed.notify_waiters();
    }
}

/// Takes a seat at a model, loading it first when it is not loaded or loaded otherwise.
pub(super) async fn seat(
    shared: &Arc<Shared>,
    model: &Model,
    launch: Launch,
    keep: Option<Option<Duration>>,
) -> Result<Seat, Busy> {
    let (clock, config) = {
        let state = shared.lock();
        (state.clock, state.config.clone())
    };
    let started = Instant::now();
    shared.runners.list(clock);
    let ready = |shared: &Shared| {
        let loaded = shared.runners.loaded();
        loaded.get(&model.name).filter(|runner| runner.launch == launch).map(|runner| runner.permits.clone())
    };
    if ready(shared).is_none() {
        let _queued = {
            let mut waiting = shared.runners.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            // One that is being loaded has left the queue.
            if *waiting > config.max_queue {
                shared.lock().counters.refused += 1;
                return Err(Busy);
            }
            *waiting += 1;
            InQueue(&shared.runners.waiting)
        };
        let _loader = shared.runners.loader.lock().await;
        if ready(shared).is_none() {
            make_room(shared, &model.name, config.max_loaded).await;
            let reload = shared.runners.loaded().remove(&model.name).is_some();
            let unfinished = Unfinished(shared);
            tokio::time::sleep(config.delays.load).await;
            std::mem::forget(unfinished);
            let runner = Runner {
                launch: launch.clone(),
                permits: Arc::new(Semaphore::new(config.parallel as usize)),
                parallel: config.parallel,
                keep: Some(config.keep_alive),
                expires: Some(clock.saturating_add(config.keep_alive)),
            };
            shared.runners.loaded().insert(model.name.clone(), runner);
            let counters = &mut shared.lock().counters;
            counters.loads += 1;
            counters.reloads += usize::from(reload);
        }
    }
    let load = started.elapsed();
    let permits = ready(shared).ok_or(Busy)?;
    let permit = permits.acquire_owned().await.map_err(|_| Busy)?;
    let mut loaded = shared.runners.loaded();
    if let Some(runner) = loaded.get_mut(&model.name) {
        if let Some(keep) = keep {
            runner.keep = keep;
        }
        runner.rest(clock);
        let at_once = runner.parallel as usize - runner.permits.available_permits();
        let counters = &mut shared.lock().counters;
        counters.most_at_once = counters.most_at_once.max(at_once);
    }
    drop(loaded);
    Ok(Seat { load, shared: shared.clone(), name: model.name.clone(), permit: Some(permit) })
}

/// Waits until a reload of this model would disturb nobody and there is a place for it.
async fn make_room(shared: &Shared, name: &str, places: usize) {
    loop {
        let freed = shared.runners.freed.notified();
        {
            let mut loaded = shared.runners.loaded();
            let others = loaded.keys().filter(|other| *other != name).count();
            let victim =
                loaded.iter().find(|(other, runner)| *other != name && runner.idle()).map(|(other, _)| other.clone());
            let own_busy = loaded.get(name).is_some_and(|runner| !runner.idle());
            match victim {
                _ if own_busy => {}
                _ if others < places => return,
                Some(victim) => {
                    loaded.remove(&victim);
                    continue;
                }
                None => {}
            }
        }
        freed.await;
    }
}

/// Counts a load that was given up.
struct Unfinished<'a>(&'a Shared);

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        self.0.lock().counters.aborted_loads += 1;
    }
}
