//! Connections to one Ollama.

use std::time::Duration;

use reqwest::{
    Certificate, Client, Response,
    header::{CONTENT_TYPE, HeaderMap},
    redirect,
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::timeout;
use url::Url;

use crate::{host::BaseUrl, refusal::Refusal};

const JSON: &str = "application/json";
/// Answers that are not streamed are read up to here.
const LARGEST_BODY: usize = 8 << 20;
/// Bodies of errors are read up to here.
const LARGEST_ERROR: usize = 64 << 10;

#[derive(Clone, Debug)]
pub(crate) struct Transport {
    client: Client,
    pub(crate) base: BaseUrl,
    headers: HeaderMap,
}

impl Transport {
    pub(crate) fn new(
        base: BaseUrl,
        headers: HeaderMap,
        authorities: Vec<Certificate>,
        connect: Duration,
    ) -> Result<Self, reqwest::Error> {
        let client = Client::builder()
            .tls_certs_merge(authorities)
            .redirect(redirect::Policy::none())
            .connect_timeout(connect)
            .user_agent(concat!("logwarden/", env!("CARGO_PKG_VERSION")))
            .http1_only();
        let client = if base.is_near() { client.no_proxy() } else { client };
        // Where nothing is encrypted the system's certificates need not be read, which takes longer than all the rest.
        let client = if base.is_plain() { client.tls_certs_only([]) } else { client };
        Ok(Self { client: client.build()?, base, headers })
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str, within: Duration) -> Result<T, Refusal> {
        let request = self.client.get(self.base.join(path)).headers(self.headers());
        whole(request, within, "").await
    }

    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &(impl Serialize + Sync),
        model: &str,
        within: Duration,
    ) -> Result<T, Refusal> {
        let body = serde_json::to_vec(body).map_err(|error| Refusal::Refused(error.to_string()))?;
        let request = self.client.post(self.base.join(path)).headers(self.headers());
        whole(request.header(CONTENT_TYPE, JSON).body(body), within, model).await
    }

    /// The head of a streamed answer; the body is the caller's to read. `within` is the time to the first byte, before
    /// which the server sends nothing at all.
    pub(crate) async fn stream(
        &self,
        path: &str,
        body: Vec<u8>,
        model: &str,
        within: Duration,
    ) -> Result<Response, Refusal> {
        let request = self.client.post(self.base.join(path)).headers(self.headers());
        let request = request.header(CONTENT_TYPE, JSON).body(body);
        let silent = Refusal::Silent { doing: "waiting for the first word", after: within };
        let response = timeout(within, request.send()).await.map_err(|_| silent)?.map_err(sending)?;
        if response.status().is_success() { Ok(response) } else { Err(refused(response, model, within).await) }
    }

    /// Whether an Ollama answers at another address of this machine. Without our credentials.
    pub(crate) async fn answers_at(&self, url: Url, within: Duration) -> bool {
        matches!(timeout(within, self.client.get(url).send()).await, Ok(Ok(response)) if response.status().is_success())
    }

    fn headers(&self) -> HeaderMap {
        self.headers.clone()
    }
}

async fn whole<T: DeserializeOwned>(
    request: reqwest::RequestBuilder,
    within: Duration,
    model: &str,
) -> Result<T, Refusal> {
    let silent = || Refusal::Silent { doing: "waiting for a short answer", after: within };
    let response = timeout(within, request.send()).await.map_err(|_| silent())?.map_err(sending)?;
    if !response.status().is_success() {
        return Err(refused(response, model, within).await);
    }
    let body = timeout(within, read_capped(response, LARGEST_BODY)).await.map_err(|_| silent())??;
    serde_json::from_slice(&body).map_err(|_| Refusal::Hinted {
        reason: "what answers at this address is not Ollama".to_owned(),
        hint: "check OLLAMA_HOST: another service may listen there",
    })
}

async fn refused(response: Response, model: &str, within: Duration) -> Refusal {
    let status = response.status().as_u16();
    let body = timeout(within, read_capped(response, LARGEST_ERROR)).await;
    // Without its body a status still says enough.
    let body = body.ok().and_then(Result::ok).unwrap_or_default();
    Refusal::from_body(status, &body, model)
}

async fn read_capped(mut response: Response, most: usize) -> Result<Vec<u8>, Refusal> {
    let mut body = Vec::new();
    while let Some(bytes) = response.chunk().await.map_err(broken)? {
        let room = most - body.len();
        body.extend_from_slice(&bytes[..bytes.len().min(room)]);
        if bytes.len() > room {
            break;
        }
    }
    Ok(body)
}

fn sending(error: reqwest::Error) -> Refusal {
    let connecting = error.is_connect() || error.is_timeout();
    let cause = root(&error.without_url()).into();
    if connecting { Refusal::Unreachable(cause) } else { Refusal::Broken(cause) }
}

pub(crate) fn broken(error: reqwest::Error) -> Refusal {
    Refusal::Broken(root(&error.without_url()).into())
}

/// The innermost cause: what is around it says how the HTTP library is built.
fn root(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(cause) = error.source() {
        error = cause;
    }
    error.to_string()
}
