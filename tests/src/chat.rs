//! What the doubles of chat services share: a small HTTP server that can misbehave in every way we have seen.
//!
//! It speaks HTTP/1.1 by hand, one request per connection, because a framework would not let us hang, drip, or drop the
//! connection after the whole request has arrived.

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

const MOST_HEAD: usize = 64 * 1024;
const MOST_BODY: usize = 26 * 1024 * 1024;

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Request {
    /// `POST`.
    pub method: String,
    /// The path without the query.
    pub path: String,
    /// The query, as written.
    pub query: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Request {
    /// A header's value; the name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// A parameter of the query.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
    }

    /// The body as JSON.
    pub fn json(&self) -> Option<Value> {
        serde_json::from_slice(&self.body).ok()
    }
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// Headers besides those of every answer.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Response {
    /// An answer with a body of text.
    pub fn text(status: u16, body: impl Into<String>) -> Self {
        Self { status, headers: vec![("content-type".into(), "text/html".into())], body: body.into().into_bytes() }
    }

    /// An answer with a body of JSON.
    pub fn json(status: u16, body: &Value) -> Self {
        let headers = vec![("content-type".into(), "application/json".into())];
        Self { status, headers, body: body.to_string().into_bytes() }
    }

    /// An answer without a body.
    pub fn empty(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new() }
    }

    /// The same with one header more.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }
}

/// What happens to the next request instead of a good answer.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Nothing: it is answered as usual. For scripts with faults in between.
    None,
    /// It is not looked at; this is the answer.
    Answer(Response),
    /// It is taken, but this is the answer.
    TakeAndAnswer(Response),
    /// It is read, and never answered.
    Hang,
    /// It is read and taken, and the connection closed without an answer: the ambiguous case.
    CutAfterRequest,
    /// It is taken, and the answer breaks off in the middle of its body.
    CutAnswer,
    /// It is taken, and the answer comes byte by byte with this in between.
    Drip(Duration),
}

/// What decides about requests.
pub trait Service: Send + 'static {
    /// Takes a request and answers it.
    fn answer(&mut self, request: &Request) -> Response;
}

/// A running server with a service. Stops when dropped.
pub struct Server<S> {
    address: SocketAddr,
    state: Arc<Mutex<State<S>>>,
    task: JoinHandle<()>,
}

struct State<S> {
    service: S,
    script: VecDeque<Fault>,
    requests: Vec<Request>,
}

impl<S: Service> Server<S> {
    /// Starts `service` on a free port of this machine.
    ///
    /// # Errors
    ///
    /// When no port can be had.
    pub async fn start(service: S) -> io::Result<Self> {
        Self::listen("127.0.0.1:0".parse().map_err(io::Error::other)?, service).await
    }

    /// Starts `service` at `address`.
    ///
    /// # Errors
    ///
    /// When the address cannot be had.
    pub async fn listen(address: SocketAddr, service: S) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let state = Arc::new(Mutex::new(State { service, script: VecDeque::new(), requests: Vec::new() }));
        let shared = state.clone();
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let state = shared.clone();
                connections.spawn(async move {
                    // A client that goes away is its own affair.
                    let _ = serve(stream, &state).await;
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self { address, state, task })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:PORT`.
    pub fn base(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What happens to the next requests, one each; then all is well again.
    pub fn script(&self, faults: impl IntoIterator<Item = Fault>) {
        lock(&self.state).script.extend(faults);
    }

    /// All requests so far, those that met a fault included.
    pub fn requests(&self) -> Vec<Request> {
        lock(&self.state).requests.clone()
    }

    /// Looks at the service.
    pub fn with<T>(&self, look: impl FnOnce(&mut S) -> T) -> T {
        look(&mut lock(&self.state).service)
    }
}

impl<S> Drop for Server<S> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve<S: Service>(mut stream: TcpStream, state: &Mutex<State<S>>) -> io::Result<()> {
    let request = read(&mut stream).await?;
    let (fault, response) = {
        let mut state = lock(state);
        state.requests.push(request.clone());
        let fault = state.script.pop_front().unwrap_or(Fault::None);
        let response = match &fault {
            Fault::Answer(response) => response.clone(),
            Fault::Hang => Response::empty(200),
            Fault::TakeAndAnswer(response) => {
                state.service.answer(&request);
                response.clone()
            }
            _ => state.service.answer(&request),
        };
        (fault, response)
    };
    let bytes = wire(&response);
    match fault {
        Fault::None | Fault::Answer(_) | Fault::TakeAndAnswer(_) => stream.write_all(&bytes).await?,
        Fault::Hang => std::future::pending().await,
        Fault::CutAfterRequest => return Ok(()),
        Fault::CutAnswer => stream.write_all(&bytes[..bytes.len() - response.body.len().div_ceil(2)]).await?,
        Fault::Drip(pause) => {
            for byte in bytes {
                stream.write_all(&[byte]).await?;
                // The timer's shortest sleep is a millisecond, which adds up to the client's patience on a busy machine.
                match pause.is_zero() {
                    true => tokio::task::yield_now().await,
                    false => tokio::time::sleep(pause).await,
                }
            }
        }
    }
    stream.shutdown().await
}

fn wire(response: &Response) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {} x\r\nconnection: close\r\n", response.status);
    for (name, value) in &response.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if response.status != 204 {
        head.push_str(&format!("content-length: {}\r\n", response.body.len()));
    }
    head.push_str("\r\n");
    let mut bytes = head.into_bytes();
    bytes.extend_from_slice(&response.body);
    bytes
}

async fn read(stream: &mut TcpStream) -> io::Result<Request> {
    let invalid = || io::Error::from(io::ErrorKind::InvalidData);
    let mut bytes = Vec::new();
    let head = loop {
        if let Some(at) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break at;
        }
        if bytes.len() > MOST_HEAD || stream.read_buf(&mut bytes).await? == 0 {
            return Err(invalid());
        }
    };
    let mut body = bytes.split_off(head + 4);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let mut lines = text.split("\r\n");
    let mut start = lines.next().unwrap_or_default().split(' ');
    let (method, target) = (start.next().unwrap_or_default(), start.next().unwrap_or_default());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let headers: Vec<_> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let length = headers.iter().find(|(name, _)| name == "content-length").and_then(|(_, value)| value.parse().ok());
    let length: usize = length.unwrap_or(0);
    if length > MOST_BODY {
        return Err(invalid());
    }
    while body.len() < length {
        if stream.read_buf(&mut body).await? == 0 {
            return Err(invalid());
        }
    }
    body.truncate(length);
    Ok(Request { method: method.into(), path: path.into(), query: query.into(), headers, body })
}

/// The length of text as the strictest reader counts it: UTF-16 units, never fewer than code points.
pub fn units(text: &str) -> usize {
    text.chars().map(char::len_utf16).sum()
}
