//! Exchanges with real servers, recorded by whoever has one, served again word for word.
//!
//! One JSON file per exchange: `request` (`method`, `path`, `query`) and `response` (`status`, `headers`, `body` as text or
//! `body_base64` as the bytes on the wire), or no response where the server gave none. They are large and not part of this
//! repository; the tests that need them are ignored, and name the directory in `LOGWARDEN_RECORDED`.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinHandle,
};

/// One exchange.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// Its name: the file's.
    pub name: String,
    /// The path of the request.
    pub path: String,
    /// Its query parameters; null where there were none.
    pub query: Value,
    /// The body of the request, where it was JSON.
    pub body: Value,
    /// The status of the answer; nothing where none came.
    pub status: Option<u16>,
    /// The answer's text, without compression; nothing where it was not kept.
    pub text: Option<String>,
    headers: Vec<(String, String)>,
    wire: Vec<u8>,
}

/// The exchanges of a directory below the one that `LOGWARDEN_RECORDED` names, by their names.
///
/// # Panics
///
/// When there are none.
pub fn read(directory: &str) -> Vec<Exchange> {
    let Some(root) = std::env::var_os("LOGWARDEN_RECORDED") else { panic!("LOGWARDEN_RECORDED names no directory") };
    let directory = Path::new(&root).join(directory);
    let files = std::fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut files: Vec<PathBuf> = files.flatten().map(|entry| entry.path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "json"));
    files.sort();
    let exchanges: Vec<_> = files.iter().filter_map(|file| Exchange::read(file)).collect();
    assert!(!exchanges.is_empty(), "no exchanges in {}", directory.display());
    exchanges
}

impl Exchange {
    /// `None` for a file that holds something else, such as a measured result.
    fn read(file: &Path) -> Option<Self> {
        let text = std::fs::read_to_string(file).ok()?;
        let value: Value = serde_json::from_str(&text).ok()?;
        let (request, response) = (value.get("request")?, &value["response"]);
        // Of long bodies only the ends were kept.
        let text = response["body"].as_str().filter(|text| !text.contains("...[elided ")).map(str::to_owned);
        let wire = match response["body_base64"].as_str() {
            Some(bytes) => STANDARD.decode(bytes).ok()?,
            None => text.clone().unwrap_or_default().into_bytes(),
        };
        let headers = response["headers"].as_object().into_iter().flatten();
        Some(Self {
            name: file.file_stem()?.to_string_lossy().into_owned(),
            path: request["path"].as_str()?.to_owned(),
            query: request["query"].clone(),
            body: request["body"].clone(),
            status: response["status"].as_u64().and_then(|status| u16::try_from(status).ok()),
            text,
            headers: headers.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect(),
            wire,
        })
    }

    /// Answers every request with what was recorded.
    ///
    /// # Errors
    ///
    /// When no port can be had.
    pub async fn serve(&self) -> io::Result<Served> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let framing = ["transfer-encoding", "content-length", "connection"];
        let mut answer = self.status.map(|status| format!("HTTP/1.1 {status} x\r\n").into_bytes()).unwrap_or_default();
        if self.status.is_some() {
            let mut head = format!("connection: close\r\ncontent-length: {}\r\n", self.wire.len());
            for (name, value) in &self.headers {
                if !framing.contains(&name.to_ascii_lowercase().as_str()) {
                    head.push_str(&format!("{name}: {value}\r\n"));
                }
            }
            head.push_str("\r\n");
            answer.extend_from_slice(head.as_bytes());
            answer.extend_from_slice(&self.wire);
        }
        let task = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (mut read, mut buffer) = (Vec::new(), [0; 4096]);
                while !whole(&read) {
                    match stream.read(&mut buffer).await {
                        Ok(0) | Err(_) => break,
                        Ok(n) => read.extend_from_slice(&buffer[..n]),
                    }
                }
                // A client that goes away is its own affair.
                let _ = stream.write_all(&answer).await;
                let _ = stream.shutdown().await;
            }
        });
        Ok(Served { address, task })
    }
}

/// Whether a request is there with its body.
fn whole(read: &[u8]) -> bool {
    let Some(head) = read.windows(4).position(|window| window == b"\r\n\r\n") else { return false };
    let text = String::from_utf8_lossy(&read[..head]).to_ascii_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    read.len() >= head + 4 + length.unwrap_or(0)
}

/// A server with one answer. Stops when dropped.
#[derive(Debug)]
pub struct Served {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Served {
    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}
