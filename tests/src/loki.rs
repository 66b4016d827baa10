//! A fake Grafana Loki: a real HTTP server over lines in memory, with the habits of the real one and the faults that were
//! seen on it.
//!
//! It keeps a set of lines per tenant, cuts pages at `limit` over all streams, refuses what Loki refuses with the texts
//! and statuses of Loki 3.8, and never answers a page over 4 MiB. [`Faults`] switch on what goes wrong in practice: pages
//! with holes, hanging requests, cut connections, 5xx, garbage, endless bodies, a silently clamped look-back and a result
//! cache. LogQL is the part that people use in a log source: selectors, line filters, and stages that are passed over.

mod logql;
mod server;
mod store;

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use store::Store;

pub use store::Labels;

/// What the fake does besides being a Loki.
#[derive(Clone, Debug)]
pub struct Faults {
    /// Requests without `X-Scope-OrgID` get 401.
    pub auth_enabled: bool,
    /// Several tenants in one request are allowed.
    pub multi_tenant: bool,
    /// The only `Authorization` that a proxy in front lets through.
    pub authorization: Option<String>,
    /// Answers of this many shards are merged as Loki merges them: pages may have holes or come back short.
    pub shards: Option<usize>,
    /// `max_entries_limit_per_query`.
    pub max_entries: usize,
    /// Bytes of a page beyond which there is no answer.
    pub page_bytes: usize,
    /// What happens with such a page.
    pub oversize: Fault,
    /// `max_query_length`.
    pub max_query_length: Duration,
    /// `max_query_lookback`: older lines are silently missing.
    pub lookback: Option<Duration>,
    /// Empty answers of queries with a filter are kept, unless the request says `no-cache`.
    pub cache: bool,
    /// Answers carry no `stats`, as those of other products behind the same API.
    pub no_stats: bool,
    /// Before Loki 3.0: `categorize-labels` is unknown.
    pub no_categories: bool,
    /// `/ready` answers 503.
    pub starting: bool,
    /// What happens to the next `query_range` requests, one each.
    pub next: VecDeque<Fault>,
    /// What happens to `query_range` requests for windows that begin at this time (in nanoseconds) or later.
    pub from: Option<(i64, Fault)>,
    /// What happens to every request whose query contains the text.
    pub always: Vec<(String, Fault)>,
    /// One in so many `query_range` requests fails in a random way.
    pub chaos: Option<u64>,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            auth_enabled: false,
            multi_tenant: false,
            authorization: None,
            shards: None,
            max_entries: 5000,
            page_bytes: 4 << 20,
            oversize: Fault::Cut,
            max_query_length: Duration::from_secs(721 * 3600),
            lookback: None,
            cache: false,
            no_stats: false,
            no_categories: false,
            starting: false,
            next: VecDeque::new(),
            from: None,
            always: Vec::new(),
            chaos: None,
        }
    }
}

/// One thing that goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing does.
    None,
    /// The answer comes after this time.
    Delay(Duration),
    /// No answer ever.
    Hang,
    /// The connection ends without an answer.
    Cut,
    /// The connection ends in the middle of the answer.
    CutBody,
    /// A status with a plain text.
    Status(u16, String),
    /// Status 200 with a body that is something else.
    Garbage(String),
    /// A body that never ends.
    Endless,
}

/// A request as it came in.
#[derive(Clone, Debug)]
pub struct Request {
    /// The path without the base path.
    pub path: String,
    /// The decoded parameters of target and form.
    pub params: Vec<(String, String)>,
    /// The headers, names in lower case.
    pub headers: Vec<(String, String)>,
}

impl Request {
    /// The first parameter of this name.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.params.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// The header of this name (lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

/// Everything that the handlers share.
#[derive(Debug)]
struct State {
    store: Store,
    faults: Faults,
    requests: Vec<Request>,
    cached: Vec<(String, String, i64, i64)>,
    under_way: usize,
    most_at_once: usize,
    started: Instant,
    clock: i64,
    random: u64,
}

impl State {
    fn now(&self) -> i64 {
        self.clock.saturating_add(i64::try_from(self.started.elapsed().as_nanos()).unwrap_or(i64::MAX))
    }

    /// Xorshift: the same for every run, so that a failure can be repeated.
    fn random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}

/// A running fake; dropping it stops it.
#[derive(Debug)]
pub struct FakeLoki {
    state: Arc<Mutex<State>>,
    address: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

/// How many requests are remembered for [`FakeLoki::requests`].
const MAX_REQUESTS: usize = 100_000;

impl FakeLoki {
    /// Starts on a free port of the loopback interface; `now` is its clock in nanoseconds since 1970, which runs on from
    /// there.
    ///
    /// # Errors
    ///
    /// When no port can be had.
    pub async fn start(now: i64) -> std::io::Result<Self> {
        Self::listen("127.0.0.1:0", now).await
    }

    /// Starts on an address.
    ///
    /// # Errors
    ///
    /// When the address cannot be used.
    pub async fn listen(address: &str, now: i64) -> std::io::Result<Self> {
        let listener = tokio::net::TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let state = Arc::new(Mutex::new(State {
            store: Store::default(),
            faults: Faults::default(),
            requests: Vec::new(),
            cached: Vec::new(),
            under_way: 0,
            most_at_once: 0,
            started: Instant::now(),
            clock: now,
            random: 0x9e37_79b9_7f4a_7c15,
        }));
        let task = tokio::spawn(server::serve(listener, state.clone()));
        Ok(Self { state, address, task })
    }

    /// Its address as a URL without a path; it answers below any base path.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Stores a line; the same line again changes nothing. `tenant` is `fake` where there is no authentication.
    pub fn push(&self, tenant: &str, labels: &[(&str, &str)], time: i64, text: &str) {
        self.push_with(tenant, labels, time, text, &[]);
    }

    /// Stores a line with structured metadata.
    pub fn push_with(&self, tenant: &str, labels: &[(&str, &str)], time: i64, text: &str, metadata: &[(&str, &str)]) {
        let owned =
            |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<Labels>();
        self.lock().store.insert(tenant, owned(labels), time, text.to_owned(), owned(metadata));
    }

    /// Forgets all lines before a time, as retention does.
    pub fn forget_before(&self, time: i64) {
        self.lock().store.forget_before(time);
    }

    /// Sets its clock.
    pub fn set_now(&self, now: i64) {
        let mut state = self.lock();
        state.clock = now;
        state.started = Instant::now();
    }

    /// Changes what goes wrong.
    pub fn faults(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.lock().faults);
    }

    /// The seed of everything random in it.
    pub fn seed(&self, seed: u64) {
        self.lock().random = seed | 1;
    }

    /// The requests since the last call.
    pub fn requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.lock().requests)
    }

    /// How many requests were under way at once, at most.
    pub fn most_at_once(&self) -> usize {
        self.lock().most_at_once
    }

    /// Waits until the server ends, which it does only when it is dropped.
    pub async fn wait(&mut self) {
        let _ = (&mut self.task).await;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for FakeLoki {
    fn drop(&mut self) {
        self.task.abort();
    }
}
