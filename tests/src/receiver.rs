//! The real receiver as a person starts it, and a shipper that pushes to it as Fluent Bit does.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io,
    net::SocketAddr,
    path::Path,
    process::{ExitStatus, Stdio},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    process::{Child, Command},
    task::JoinHandle,
    time,
};

use crate::program;

/// What waits for a condition gives up after this.
const PATIENCE: Duration = Duration::from_secs(30);
/// Log text that is kept.
const LOG: usize = 4 << 20;

/// A running receiver. Killed when dropped.
#[derive(Debug)]
pub struct Receiver {
    child: Child,
    address: SocketAddr,
    log: Arc<Mutex<String>>,
    reading: JoinHandle<()>,
}

/// A command of the receiver: nothing from our environment, state in `directory/state`.
pub fn command(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program::binary("logwarden-receiver"));
    command.env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command.current_dir(directory).args(arguments).arg("--state-dir").arg(directory.join("state"));
    command
}

impl Receiver {
    /// Starts `serve` on a free port, and waits until it listens.
    ///
    /// # Errors
    ///
    /// With its log, when it ends instead.
    pub async fn start(directory: &Path, environment: &[(&str, &str)]) -> Result<Self, String> {
        let mut command = command(directory, &["serve", "--listen", "127.0.0.1:0"]);
        command.envs(environment.iter().copied());
        Self::spawn(command).await
    }

    /// Starts a command, which is a `serve` in whatever surroundings, and waits until it listens.
    ///
    /// # Errors
    ///
    /// With its log, when it ends instead.
    pub async fn spawn(mut command: Command) -> Result<Self, String> {
        let mut child = command.spawn().map_err(|error| error.to_string())?;
        let log: Arc<Mutex<String>> = Arc::default();
        let (kept, stderr) = (log.clone(), child.stderr.take());
        let reading = tokio::spawn(async move {
            let Some(stderr) = stderr else { return };
            let mut lines = BufReader::new(stderr).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                let mut log = kept.lock().unwrap_or_else(PoisonError::into_inner);
                if log.len() < LOG {
                    let _ = writeln!(log, "{line}");
                }
            }
        });
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut receiver = Self { child, address: nowhere, log, reading };
        let listening = async {
            loop {
                let address =
                    receiver.log().split("listen=").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok());
                if let Some(address) = address {
                    return Some(address);
                }
                if let Ok(Some(_)) = receiver.child.try_wait() {
                    let _ = (&mut receiver.reading).await;
                    return None;
                }
                time::sleep(Duration::from_millis(5)).await;
            }
        };
        match time::timeout(PATIENCE, listening).await {
            Ok(Some(address)) => receiver.address = address,
            _ => return Err(receiver.log().clone()),
        }
        Ok(receiver)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id().unwrap_or(0)
    }

    /// What it has said.
    pub fn log(&self) -> MutexGuard<'_, String> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Peak memory of the process alone, in bytes; zero where unknown.
    pub fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
        line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024
    }

    /// Time that the process alone has spent on a processor; zero where unknown.
    pub fn processor_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap_or_default();
        // Behind the name, which may hold anything: user and system time are the 12th and 13th, in hundredths of a second.
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace();
        let ticks: u64 = fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
        Duration::from_millis(ticks * 10)
    }

    /// Kills it, as a power cut would, and waits until it is gone.
    pub async fn kill(mut self) {
        let _ = self.child.kill().await;
    }

    /// Sends a signal, by name.
    pub fn signal(&self, name: &str) {
        let _ = std::process::Command::new("kill").args(["-s", name, &self.pid().to_string()]).status();
    }

    /// Waits until it ends; with everything that it has said.
    ///
    /// # Errors
    ///
    /// When it does not end.
    pub async fn ended(mut self) -> io::Result<(ExitStatus, String)> {
        let status = time::timeout(2 * PATIENCE, self.child.wait()).await??;
        let _ = (&mut self.reading).await;
        let log = self.log().clone();
        Ok((status, log))
    }

    /// Pushes a body as Fluent Bit's default output does.
    ///
    /// # Errors
    ///
    /// When there is no answer.
    pub async fn push(&self, body: &[u8]) -> io::Result<Answer> {
        Shipper::connect(self.address).await?.push(body).await
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// `Retry-After`, if there is one.
    pub retry_after: Option<u64>,
    /// The body.
    pub body: String,
}

impl Answer {
    /// Whether the sender may forget what it has sent.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// One connection with Fluent Bit's headers, by hand: it can break off wherever it likes.
#[derive(Debug)]
pub struct Shipper {
    stream: BufReader<TcpStream>,
    host: String,
}

impl Shipper {
    /// Connects.
    ///
    /// # Errors
    ///
    /// When nobody listens.
    pub async fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(stream), host: address.to_string() })
    }

    /// Pushes a body and waits for the answer.
    ///
    /// # Errors
    ///
    /// When the connection ends before there is one.
    pub async fn push(&mut self, body: &[u8]) -> io::Result<Answer> {
        self.ask("POST", "/receive_logs", "", body).await
    }

    /// Asks anything; `headers` end with a line break each.
    ///
    /// # Errors
    ///
    /// When the connection ends before there is an answer.
    pub async fn ask(&mut self, method: &str, path: &str, headers: &str, body: &[u8]) -> io::Result<Answer> {
        self.begin(method, path, headers, body.len()).await?;
        self.send(body).await?;
        self.answer().await
    }

    /// Sends the head of a request.
    ///
    /// # Errors
    ///
    /// When the connection has ended.
    pub async fn begin(&mut self, method: &str, path: &str, headers: &str, length: usize) -> io::Result<()> {
        let host = &self.host;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\nContent-Type: application/json\r\n\
             {headers}User-Agent: Fluent-Bit\r\nConnection: keep-alive\r\n\r\n"
        );
        self.stream.get_mut().write_all(head.as_bytes()).await
    }

    /// Sends a piece of the body.
    ///
    /// # Errors
    ///
    /// When the connection has ended.
    pub async fn send(&mut self, piece: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(piece).await
    }

    /// Reads an answer.
    ///
    /// # Errors
    ///
    /// When the connection ends before there is one.
    pub async fn answer(&mut self) -> io::Result<Answer> {
        let broken = || io::Error::from(io::ErrorKind::UnexpectedEof);
        let mut answer = Answer { status: 0, retry_after: None, body: String::new() };
        let mut length = 0;
        for number in 0.. {
            let mut line = String::new();
            if self.stream.read_line(&mut line).await? == 0 {
                return Err(broken());
            }
            let line = line.trim_end();
            if number == 0 {
                answer.status = line.split(' ').nth(1).and_then(|text| text.parse().ok()).ok_or_else(broken)?;
            } else if line.is_empty() {
                break;
            } else if let Some((name, value)) = line.split_once(':') {
                match name.to_ascii_lowercase().as_str() {
                    "content-length" => length = value.trim().parse().map_err(|_| broken())?,
                    "retry-after" => answer.retry_after = value.trim().parse().ok(),
                    _ => {}
                }
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await?;
        answer.body = String::from_utf8_lossy(&body).into_owned();
        Ok(answer)
    }
}

/// A body of Fluent Bit's `json` format: each line with the time at which it was read.
pub fn records<'a>(seconds: f64, lines: impl IntoIterator<Item = &'a str>) -> Vec<u8> {
    let mut body = String::from("[");
    for (number, line) in lines.into_iter().enumerate() {
        let comma = if number == 0 { "" } else { "," };
        let line = serde_json::Value::from(line);
        let _ = write!(body, "{comma}{{\"date\":{:.6},\"log\":{line}}}", seconds + number as f64 / 1e6);
    }
    body.push(']');
    body.into_bytes()
}

/// The hash of a token, by what people are told to type: `printf %s TOKEN | sha256sum`.
pub fn sha256sum(token: &str) -> String {
    let mut command = std::process::Command::new("sh");
    let output = command.args(["-c", "printf %s \"$0\" | sha256sum", token]).output();
    let printed = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    printed.split(' ').next().unwrap_or_default().to_owned()
}

/// Seconds since 1970.
pub fn now() -> f64 {
    std::time::UNIX_EPOCH.elapsed().map_or(0.0, |since| since.as_secs_f64())
}

/// Waits until `done` says so.
///
/// # Panics
///
/// When it waits in vain, with what it waited for.
pub async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !done().await {
            time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(time::timeout(PATIENCE, waiting).await.is_ok(), "waited in vain: {what}");
}

/// Lines per batch of a [`Crowd`].
pub const BATCH: u64 = 20;

/// Several shippers that push numbered batches as fast as they are answered, and send what was not acknowledged again,
/// byte for byte, as Fluent Bit does.
#[derive(Debug)]
pub struct Crowd {
    shippers: Vec<Member>,
}

#[derive(Debug)]
struct Member {
    host: String,
    next: u64,
    /// Sent, and not acknowledged.
    open: Option<Vec<u8>>,
    acknowledged: u64,
}

impl Member {
    fn batch(&mut self) -> Vec<u8> {
        let (host, number) = (&self.host, self.next);
        self.next += 1;
        let mut body = String::from("[");
        for line in 0..BATCH {
            let comma = if line == 0 { "" } else { "," };
            let date = now() + line as f64 / 1e6;
            let _ = write!(
                body,
                "{comma}{{\"date\":{date:.6},\"host\":\"{host}\",\"log\":\"worker: batch {number} item {line} of {host} took 12 ms\"}}"
            );
        }
        body.push(']');
        body.into_bytes()
    }

    /// Pushes until it is told to stop, or once more until nothing is open.
    async fn push(mut self, address: SocketAddr, stop: Arc<AtomicBool>) -> Self {
        let mut connection = None;
        while !stop.load(Ordering::Relaxed) {
            let body = match self.open.take() {
                Some(body) => body,
                None => self.batch(),
            };
            if connection.is_none() {
                connection = Shipper::connect(address).await.ok();
            }
            let answered = match &mut connection {
                Some(shipper) => shipper.push(&body).await,
                None => Err(io::ErrorKind::ConnectionRefused.into()),
            };
            match answered {
                Ok(answer) if answer.is_success() => self.acknowledged += BATCH,
                Ok(_) => self.open = Some(body),
                Err(_) => {
                    (self.open, connection) = (Some(body), None);
                    time::sleep(Duration::from_millis(5)).await;
                }
            }
        }
        self
    }
}

impl Crowd {
    /// So many shippers, each on a host of its own.
    pub fn new(shippers: usize) -> Self {
        let member = |number| Member { host: format!("host-{number}"), next: 0, open: None, acknowledged: 0 };
        Self { shippers: (0..shippers).map(member).collect() }
    }

    /// Pushes while `meanwhile` runs.
    pub async fn push_while<T>(&mut self, address: SocketAddr, meanwhile: impl Future<Output = T>) -> T {
        let stop: Arc<AtomicBool> = Arc::default();
        let members = std::mem::take(&mut self.shippers);
        let tasks: Vec<_> =
            members.into_iter().map(|member| tokio::spawn(member.push(address, stop.clone()))).collect();
        let done = meanwhile.await;
        stop.store(true, Ordering::Relaxed);
        for task in tasks {
            self.shippers.extend(task.await);
        }
        done
    }

    /// Sends once more what was not acknowledged.
    ///
    /// # Errors
    ///
    /// When it is not acknowledged now.
    pub async fn finish(&mut self, address: SocketAddr) -> Result<(), String> {
        for member in &mut self.shippers {
            let Some(body) = member.open.take() else { continue };
            let mut shipper = Shipper::connect(address).await.map_err(|error| error.to_string())?;
            match shipper.push(&body).await {
                Ok(answer) if answer.is_success() => member.acknowledged += BATCH,
                other => return Err(format!("{other:?}")),
            }
        }
        Ok(())
    }

    /// Lines that each host was told are safe.
    pub fn acknowledged(&self) -> BTreeMap<String, u64> {
        self.shippers.iter().map(|member| (member.host.clone(), member.acknowledged)).collect()
    }
}
