//! How a Loki is reached and read.

use std::{fmt, path::PathBuf, time::Duration};

use logwarden_core::source::{MAX_QUERIES, QueryInfo, SourceError, SourceId};
use secrecy::SecretString;
use url::Url;

use crate::logql;

/// A secret, or the file that holds it.
#[derive(Clone, Debug)]
pub enum Credential {
    /// The secret itself.
    Value(SecretString),
    /// A file; it is read at the first request, and again when the server no longer accepts what was in it.
    File(PathBuf),
}

/// How we say who we are. Loki has no users of its own: this is for the proxy in front of it.
#[derive(Clone, Debug, Default)]
pub enum Auth {
    /// Not at all.
    #[default]
    None,
    /// User and password; for Grafana Cloud the instance's number and an access-policy token.
    Basic {
        /// The user.
        user: String,
        /// The password.
        password: Credential,
    },
    /// A bearer token.
    Bearer(Credential),
}

/// Puts a [`Loki`](crate::Loki) together.
#[derive(Clone)]
pub struct Builder {
    pub(crate) url: String,
    pub(crate) queries: Vec<QueryInfo>,
    pub(crate) id: Option<SourceId>,
    pub(crate) tenants: Vec<String>,
    pub(crate) auth: Auth,
    pub(crate) headers: Vec<(String, SecretString)>,
    pub(crate) ca_pem: Option<Vec<u8>>,
    pub(crate) identity_pem: Option<SecretString>,
    pub(crate) proxy: Option<SecretString>,
    pub(crate) timeout: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) max_body_bytes: usize,
    pub(crate) retries: u32,
    pub(crate) backoff: Duration,
    pub(crate) reading: Reading,
}

/// The numbers of reading.
#[derive(Clone, Debug)]
pub(crate) struct Reading {
    pub(crate) lookback: Duration,
    pub(crate) settle: Duration,
    pub(crate) overlap: Duration,
    pub(crate) page_lines: usize,
    pub(crate) sweep: Option<(Duration, Duration)>,
    pub(crate) deep_sweep: Option<(Duration, Duration)>,
    pub(crate) patience: Duration,
}

/// Without the URL, which may hold a password.
impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("queries", &self.queries)
            .field("tenants", &self.tenants)
            .finish_non_exhaustive()
    }
}

impl Builder {
    pub(crate) fn new(url: &str, queries: Vec<QueryInfo>) -> Self {
        Self {
            url: url.to_owned(),
            queries,
            id: None,
            tenants: Vec::new(),
            auth: Auth::None,
            headers: Vec::new(),
            ca_pem: None,
            identity_pem: None,
            proxy: None,
            timeout: Duration::from_secs(70),
            connect_timeout: Duration::from_secs(10),
            max_body_bytes: 32 << 20,
            retries: 2,
            backoff: Duration::from_millis(500),
            reading: Reading {
                lookback: Duration::from_secs(300),
                settle: Duration::from_secs(10),
                overlap: Duration::from_secs(120),
                page_lines: 100,
                sweep: Some((Duration::from_secs(300), Duration::from_secs(75 * 60))),
                deep_sweep: Some((Duration::from_secs(3600), Duration::from_secs(24 * 3600))),
                patience: Duration::from_secs(230),
            },
        }
    }

    /// The source's name in every key of the ledger; default: the URL without credentials, and the tenants.
    #[must_use]
    pub fn id(mut self, id: SourceId) -> Self {
        self.id = Some(id);
        self
    }

    /// The tenants to read (`X-Scope-OrgID`); several only where the operator of Loki allows it.
    #[must_use]
    pub fn tenants(mut self, tenants: Vec<String>) -> Self {
        self.tenants = tenants;
        self
    }

    /// How we say who we are. Wins over credentials in the URL.
    #[must_use]
    pub fn auth(mut self, auth: Auth) -> Self {
        self.auth = auth;
        self
    }

    /// A header that is sent with every request.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: SecretString) -> Self {
        self.headers.push((name.into(), value));
        self
    }

    /// Certificates (PEM) that are trusted besides the system's.
    #[must_use]
    pub fn ca_pem(mut self, pem: Vec<u8>) -> Self {
        self.ca_pem = Some(pem);
        self
    }

    /// A client certificate with its key (PEM).
    #[must_use]
    pub fn identity_pem(mut self, pem: SecretString) -> Self {
        self.identity_pem = Some(pem);
        self
    }

    /// A proxy; there is none by default, whatever the environment says.
    #[must_use]
    pub fn proxy(mut self, url: SecretString) -> Self {
        self.proxy = Some(url);
        self
    }

    /// How long one request may take; default 70 s, a little more than Loki's own `query_timeout`. With Loki's Helm
    /// chart, whose `query_timeout` is 300 s, more is of use only for very slow stores.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How long a connection may take; default 10 s.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Bytes of an answer, decompressed, that are read at most; default 32 MiB.
    #[must_use]
    pub fn max_body_bytes(mut self, bytes: usize) -> Self {
        self.max_body_bytes = bytes;
        self
    }

    /// How often a request is repeated that failed by the server's fault, and the wait before the first repetition
    /// (doubled for each further one); default 2 and 500 ms.
    #[must_use]
    pub fn retries(mut self, times: u32, backoff: Duration) -> Self {
        self.retries = times;
        self.backoff = backoff;
        self
    }

    /// How far back the very first read looks; default 5 min.
    #[must_use]
    pub fn lookback(mut self, lookback: Duration) -> Self {
        self.reading.lookback = lookback;
        self
    }

    /// How old a line must be to be read at the front; default 10 s.
    #[must_use]
    pub fn settle(mut self, settle: Duration) -> Self {
        self.reading.settle = settle;
        self
    }

    /// How far every poll reads back for late lines; default 2 min.
    #[must_use]
    pub fn overlap(mut self, overlap: Duration) -> Self {
        self.reading.overlap = overlap;
        self
    }

    /// Lines of the first page; pages then follow the size of the lines. Never a loss. Default 100.
    #[must_use]
    pub fn page_lines(mut self, lines: usize) -> Self {
        self.reading.page_lines = lines.clamp(1, 5000);
        self
    }

    /// How often and how far back Loki's counts per minute are compared with ours; `None`: never. Default every 5 min
    /// over 75 min.
    #[must_use]
    pub fn sweep(mut self, every_and_range: Option<(Duration, Duration)>) -> Self {
        self.reading.sweep = every_and_range;
        self
    }

    /// The same, further back and seldom, for lines that come or become visible hours late; default hourly over 24 h.
    #[must_use]
    pub fn deep_sweep(mut self, every_and_range: Option<(Duration, Duration)>) -> Self {
        self.reading.deep_sweep = every_and_range;
        self
    }

    /// How long one read may wait in vain for a Loki that does not answer, and after which it hands out what it has
    /// although there is more; default 230 s, a little less than a pass.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.reading.patience = patience;
        self
    }

    /// Checks what has been given, and answers with the address of Loki.
    pub(crate) fn checked(&self) -> Result<Url, SourceError> {
        if self.queries.is_empty() || self.queries.len() > MAX_QUERIES {
            let reason = format!("there are {} of them, and 1 to {MAX_QUERIES} are possible", self.queries.len());
            return Err(unusable(
                "the list of Loki queries",
                &reason,
                "several selectors fit in one: `{job=~\"a|b\"}`",
            ));
        }
        for (i, query) in self.queries.iter().enumerate() {
            let subject = format!("the query `{}`", query.text);
            if logql::split(&query.text).is_none() {
                let reason = "it is not a LogQL log query, which begins with a selector in braces";
                return Err(unusable(
                    &subject,
                    reason,
                    "for instance `{job=\"syslog\"} |= \"error\"`; metric queries have no lines",
                ));
            }
            if self.queries[..i].iter().any(|other| other.text == query.text) {
                return Err(unusable(&subject, "it is listed twice", "list it once, with all its profiles"));
            }
        }
        for tenant in &self.tenants {
            let fits = |c: char| c.is_ascii_alphanumeric() || "!-_.*'()".contains(c);
            if tenant.is_empty() || tenant.len() > 150 || !tenant.chars().all(fits) {
                let hint = "a tenant has only letters, digits and `!-_.*'()`, up to 150 of them";
                return Err(unusable(&format!("the tenant `{tenant}`"), "Loki would refuse it", hint));
            }
        }
        base_url(&self.url)
    }
}

fn base_url(text: &str) -> Result<Url, SourceError> {
    // The text may hold a password: the error does not quote it.
    let hint = "for instance `http://localhost:3100`, or with the path that a gateway adds";
    let bad = |reason: &str| unusable("the URL of Loki", reason, hint);
    let mut url = Url::parse(text.trim()).map_err(|error| bad(&error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(bad("it does not begin with `http://` or `https://` and a host"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(bad("it has a `?` or `#` part"));
    }
    // People copy the address of one endpoint.
    let path = url.path().trim_end_matches('/').to_owned();
    let path = path.find("/loki/api/v1").map_or(path.as_str(), |at| &path[..at]);
    url.set_path(&format!("{}/", path.trim_end_matches('/')));
    Ok(url)
}

pub(crate) fn unusable(subject: &str, reason: &str, hint: &str) -> SourceError {
    SourceError::Unusable { subject: subject.into(), reason: reason.into(), hint: Some(hint.into()) }
}
