//! One request to Loki: bounded in time and size, without redirects, and without a credential in any error.

use std::{
    fmt,
    hash::{BuildHasher, Hasher, RandomState},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use logwarden_core::source::SourceError;
use reqwest::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use url::Url;

use crate::{
    config::{Auth, Builder, Credential, unusable},
    failure::{self, Failure, Kind},
};

/// Characters of an error's text that are kept.
const EXCERPT: usize = 500;
/// Bytes of an error's body that are read.
const MAX_ERROR_BODY: usize = 64 << 10;
/// Bytes of a file with a secret.
const MAX_SECRET: u64 = 64 << 10;
/// A longer request goes in a form, since proxies limit the length of a URL.
const MAX_URL_QUERY: usize = 2000;

pub(crate) struct Http {
    client: reqwest::Client,
    base: Url,
    origin: String,
    tenants: String,
    headers: HeaderMap,
    auth: Auth,
    /// What the credential's file held last; not held across an await.
    secret: Mutex<Option<SecretString>>,
    pub(crate) timeout: Duration,
    max_body: usize,
    retries: u32,
    backoff: Duration,
}

/// Without headers and proxies, which may hold secrets.
impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http").field("base", &self.base()).field("tenants", &self.tenants).finish_non_exhaustive()
    }
}

/// A body, and how large it was.
#[derive(Debug)]
pub(crate) struct Reply<T> {
    pub(crate) value: T,
    pub(crate) bytes: usize,
}

impl Http {
    pub(crate) fn new(builder: &Builder, mut base: Url) -> Result<Self, SourceError> {
        let mut auth = builder.auth.clone();
        if matches!(auth, Auth::None) && !base.username().is_empty() {
            let decode = |text: &str| {
                url::form_urlencoded::parse(text.replace('+', "%2B").as_bytes())
                    .next()
                    .map_or_else(String::new, |(text, _)| text.into_owned())
            };
            let password = Credential::Value(decode(base.password().unwrap_or("")).into());
            auth = Auth::Basic { user: decode(base.username()), password };
        }
        let stripped = base.set_username("").and_then(|()| base.set_password(None));
        stripped.map_err(|()| unusable("the URL of Loki", "its credentials cannot be separated", "set them apart"))?;

        let mut headers = HeaderMap::new();
        headers.insert("x-loki-response-encoding-flags", HeaderValue::from_static("categorize-labels"));
        headers.insert("x-query-tags", HeaderValue::from_static("Source=logwarden"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        let tenants = builder.tenants.join("|");
        if !tenants.is_empty() {
            let value = HeaderValue::from_str(&tenants);
            let value =
                value.map_err(|_| unusable("the list of tenants", "it is no header value", "use plain letters"))?;
            headers.insert("x-scope-orgid", value);
        }
        for (name, value) in &builder.headers {
            let subject = format!("the header `{name}`");
            let bad =
                |reason| unusable(&subject, reason, "names have letters, digits and dashes; values no line breaks");
            let name = HeaderName::try_from(name.as_str()).map_err(|_| bad("it has a name that no header can have"))?;
            let value = HeaderValue::from_str(value.expose_secret());
            let mut value = value.map_err(|_| bad("it has a value that no header can have"))?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }

        // One that is not answered leaves something for the others.
        let timeout = builder.timeout.min(builder.reading.patience / 4 * 3);
        let mut client = reqwest::Client::builder()
            .user_agent(concat!("logwarden/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .timeout(timeout)
            .connect_timeout(builder.connect_timeout)
            .no_proxy();
        if base.scheme() == "http" && builder.proxy.is_none() {
            // Nothing is encrypted: the system's certificates need not be read, which takes longer than all the rest.
            client = client.tls_certs_only([]);
        }
        if let Some(pem) = &builder.ca_pem {
            let pem = reqwest::Certificate::from_pem_bundle(pem).ok().filter(|certificates| !certificates.is_empty());
            let hint = "it begins with `-----BEGIN CERTIFICATE-----`";
            client = client.tls_certs_merge(pem.ok_or_else(|| unusable("the CA certificate", "it is no PEM", hint))?);
        }
        if let Some(pem) = &builder.identity_pem {
            let identity = reqwest::Identity::from_pem(pem.expose_secret().as_bytes());
            let hint = "it holds a certificate and its private key, one after the other";
            client = client.identity(identity.map_err(|_| unusable("the client certificate", "it is no PEM", hint))?);
        }
        if let Some(proxy) = &builder.proxy {
            let proxy = reqwest::Proxy::all(proxy.expose_secret());
            let proxy = proxy.map_err(|_| unusable("the proxy", "it is no URL", "for instance `http://proxy:3128`"))?;
            client = client.proxy(proxy);
        }
        let client = client.build().map_err(|error| {
            unusable("the TLS set-up", &logwarden_core::error::chain(&error.without_url()), "check the certificates")
        })?;
        Ok(Self {
            client,
            origin: base.origin().ascii_serialization(),
            base,
            tenants,
            headers,
            auth,
            secret: Mutex::new(None),
            timeout,
            max_body: builder.max_body_bytes,
            retries: builder.retries,
            backoff: builder.backoff,
        })
    }

    /// Scheme, host and port.
    pub(crate) fn origin(&self) -> &str {
        &self.origin
    }

    /// The URL without credentials.
    pub(crate) fn base(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    /// The tenants as they are sent; empty where none is.
    pub(crate) fn tenants(&self) -> &str {
        &self.tenants
    }

    /// Asks and parses; repeats what failed by the server's fault.
    pub(crate) async fn json<T: DeserializeOwned>(
        &self,
        path: &str,
        params: &[(&str, &str)],
    ) -> Result<Reply<T>, Failure> {
        let mut wait = self.backoff;
        let asked = Instant::now();
        for _ in 0..self.retries {
            match self.json_once(path, params).await {
                // Who fails slowly is not asked again: that would take as long.
                Err(Failure { kind: Kind::Later | Kind::Busy, .. }) if asked.elapsed() < self.timeout / 2 => {}
                answer => return answer,
            }
            tokio::time::sleep(wait + jitter(wait)).await;
            wait *= 2;
        }
        self.json_once(path, params).await
    }

    async fn json_once<T: DeserializeOwned>(&self, path: &str, params: &[(&str, &str)]) -> Result<Reply<T>, Failure> {
        let body = self.text(path, params).await?;
        match serde_json::from_slice(&body) {
            Ok(value) => Ok(Reply { value, bytes: body.len() }),
            Err(error) => {
                let what: String = self.excerpt(&body).chars().take(120).collect();
                let reason = if body.trim_ascii_start().starts_with(b"<") {
                    format!("{what}; is there a login page or another service at this address?")
                } else {
                    format!("{error}; it begins with `{what}`")
                };
                Err(Failure { kind: Kind::Later, error: SourceError::Garbage { origin: self.origin.clone(), reason } })
            }
        }
    }

    /// Asks for a body of any kind.
    pub(crate) async fn text(&self, path: &str, params: &[(&str, &str)]) -> Result<Vec<u8>, Failure> {
        let secret = self.secret(false).await?;
        match self.send(path, params, secret.as_ref()).await {
            Err(failure) if is_unauthorised(&failure) && secret.is_some() => {
                let renewed = self.secret(true).await?;
                let same = |a: &SecretString, b: &SecretString| a.expose_secret() == b.expose_secret();
                match (&secret, &renewed) {
                    (Some(old), Some(new)) if same(old, new) => Err(failure),
                    _ => self.send(path, params, renewed.as_ref()).await,
                }
            }
            answer => answer,
        }
    }

    async fn send(
        &self,
        path: &str,
        params: &[(&str, &str)],
        secret: Option<&SecretString>,
    ) -> Result<Vec<u8>, Failure> {
        let form = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(params).finish();
        let mut url = self.base.clone();
        url.set_path(&format!("{}{path}", self.base.path()));
        let mut request = if form.len() > MAX_URL_QUERY {
            let request = self.client.post(url).header(CONTENT_TYPE, "application/x-www-form-urlencoded");
            request.body(form)
        } else {
            url.set_query((!form.is_empty()).then_some(form.as_str()));
            self.client.get(url)
        };
        request = request.headers(self.headers.clone());
        request = match (&self.auth, secret) {
            (Auth::Basic { user, .. }, Some(secret)) => request.basic_auth(user, Some(secret.expose_secret())),
            (Auth::Bearer(_), Some(secret)) => {
                let value = HeaderValue::from_str(&format!("Bearer {}", secret.expose_secret()));
                let hint = "a token is one line of visible characters";
                let value = value.map_err(|_| source(unusable("the bearer token", "it cannot be sent", hint)))?;
                request.header(AUTHORIZATION, value)
            }
            _ => request,
        };
        let response = request.send().await.map_err(|error| self.unreachable(error))?;
        let status = response.status().as_u16();
        if status == 200 {
            return self.body(response, self.max_body).await;
        }
        let name = response.status().canonical_reason().unwrap_or("without a word");
        let body = self.body(response, MAX_ERROR_BODY).await.unwrap_or_default();
        let excerpt = Some(self.excerpt(&body)).filter(|text| !text.is_empty()).unwrap_or_else(|| name.to_owned());
        Err(failure::refused(&self.origin, &self.tenants, status, excerpt))
    }

    /// Reads a body up to `max` bytes.
    async fn body(&self, mut response: reqwest::Response, max: usize) -> Result<Vec<u8>, Failure> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.unreachable(error))? {
            if body.len() + chunk.len() > max {
                let reason = format!("the answer is larger than {} KiB", max >> 10);
                let error = SourceError::Garbage { origin: self.origin.clone(), reason };
                return Err(Failure { kind: Kind::Smaller, error });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    fn unreachable(&self, error: reqwest::Error) -> Failure {
        // A connection that was made and then broke may mean that the page was too large.
        let kind = if error.is_connect() { Kind::Later } else { Kind::Smaller };
        if error.is_timeout() && !error.is_connect() {
            return self.silent();
        }
        let cause = root(&error.without_url()).into();
        Failure { kind, error: SourceError::Unreachable { origin: self.origin.clone(), cause } }
    }

    /// No answer came: it may have been too large.
    pub(crate) fn silent(&self) -> Failure {
        let cause = format!("no answer within {:?}", self.timeout).into();
        Failure { kind: Kind::Smaller, error: SourceError::Unreachable { origin: self.origin.clone(), cause } }
    }

    /// The beginning of an error's text in one line, without our own credentials should the server repeat them.
    fn excerpt(&self, body: &[u8]) -> String {
        let text = String::from_utf8_lossy(body);
        let title = text.find("<title>").and_then(|at| text[at + 7..].split("</title>").next());
        let text = match title {
            Some(title) if text.trim_start().starts_with('<') => format!("an HTML page, \"{}\"", title.trim()),
            _ => text
                .split(|c: char| c.is_whitespace() || c.is_control())
                .filter(|w| !w.is_empty())
                .collect::<Vec<_>>()
                .join(" "),
        };
        let mut text = text;
        let sent = self.secret.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let own = match &self.auth {
            Auth::Basic { password: Credential::Value(value), .. } | Auth::Bearer(Credential::Value(value)) => {
                Some(value)
            }
            _ => None,
        };
        let headers =
            self.headers.values().filter(|value| value.is_sensitive()).filter_map(|value| value.to_str().ok());
        for secret in own.into_iter().chain(&sent).map(ExposeSecret::expose_secret).chain(headers) {
            if secret.len() >= 4 {
                text = text.replace(secret, "****");
            }
        }
        text.chars().take(EXCERPT).collect()
    }

    /// The password or token; read from its file at first, and again when `renew`ed.
    async fn secret(&self, renew: bool) -> Result<Option<SecretString>, Failure> {
        let credential = match &self.auth {
            Auth::None => return Ok(None),
            Auth::Basic { password, .. } => password,
            Auth::Bearer(token) => token,
        };
        let path = match credential {
            Credential::Value(value) => return Ok(Some(value.clone())),
            Credential::File(path) => path,
        };
        if !renew {
            let known = self.secret.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if known.is_some() {
                return Ok(known);
            }
        }
        let failed = |cause| source(SourceError::Io { path: path.display().to_string(), cause });
        let file = tokio::fs::File::open(path).await.map_err(failed)?;
        let mut text = String::new();
        let mut file = tokio::io::AsyncReadExt::take(file, MAX_SECRET);
        tokio::io::AsyncReadExt::read_to_string(&mut file, &mut text).await.map_err(failed)?;
        let secret = SecretString::from(text.trim().to_owned());
        *self.secret.lock().unwrap_or_else(PoisonError::into_inner) = Some(secret.clone());
        Ok(Some(secret))
    }
}

fn source(error: SourceError) -> Failure {
    Failure { kind: Kind::Source, error }
}

fn is_unauthorised(failure: &Failure) -> bool {
    matches!(failure.error, SourceError::Refused { status: 401, .. })
}

/// The innermost cause: what is around it says how the HTTP library is built.
fn root(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(cause) = error.source() {
        error = cause;
    }
    error.to_string()
}

/// Up to half of `wait`, so that many clients do not come back at the same instant.
fn jitter(wait: Duration) -> Duration {
    let part = u32::try_from(RandomState::new().build_hasher().finish() % 500).unwrap_or(0);
    wait * part / 1000
}
