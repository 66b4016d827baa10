//! A fake Ollama: a real HTTP server that answers as Ollama 0.33 did when it was recorded, older versions where they
//! differ, and with every fault that we know of when told to.
//!
//! What is faithful: routes, methods, status codes and error texts; no byte before the first chunk; which window applies,
//! what is cut from a prompt that does not fit (and the scripted model sees only what is left); what grammars refuse; the
//! order of properties; thinking; loading, reloading, queueing and unloading of runners. What is not: the words. The model
//! is a script ([`Behaviour`]), its tokenizer can be computed in the head ([`Tokenizer`]), and its clock for unloading is
//! moved by hand ([`FakeOllama::advance`]).
//!
//! Every request is kept as it came, so that tests can assert what was sent.

mod chat;
pub mod json;
mod openai;
mod runner;
pub mod schema;
mod script;
mod server;
mod tokens;

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{net::TcpListener, task::JoinHandle};

use self::runner::Runners;
pub use self::{script::Behaviour, tokens::Tokenizer};

/// Requests that are kept; later ones are answered but forgotten.
const MAX_REQUESTS: usize = 10_000;

/// Which of the two code paths a model takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Ollama writes the prompt's text: a prompt that is too long is halved without a word.
    Rendered,
    /// The runner writes it: too long is refused, and properties come sorted by name.
    Native,
}

/// A model that is installed.
#[derive(Clone, Debug)]
pub struct Model {
    /// Its name with its tag.
    pub name: String,
    /// Its family, for example `qwen3` or `gptoss`.
    pub family: String,
    /// What `/api/show` says it can do.
    pub capabilities: Vec<String>,
    /// Which code path it takes.
    pub way: Way,
    /// The window it was trained with.
    pub trained: u32,
    /// `num_ctx` in its Modelfile.
    pub num_ctx: Option<u32>,
    /// Whether its tokenizer puts a token before everything.
    pub bos: bool,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// Bytes on disk.
    pub size: u64,
    /// How much of it is on a GPU, in percent.
    pub on_gpu: u64,
    /// Host and name of the model behind it, for one that runs elsewhere.
    pub remote: Option<(String, String)>,
    /// What a thinking model thinks; empty when it answers without.
    pub reasoning: String,
    /// What it answers.
    pub behaviour: Behaviour,
}

impl Model {
    /// A model of an ordinary kind that takes the rendered way.
    pub fn new(name: &str, behaviour: Behaviour) -> Self {
        Self {
            name: if name.contains(':') { name.to_owned() } else { format!("{name}:latest") },
            family: name.split([':', '.', '-']).next().unwrap_or_default().to_owned(),
            capabilities: vec!["completion".to_owned()],
            way: Way::Rendered,
            trained: 32_768,
            num_ctx: None,
            bos: false,
            tokenizer: Tokenizer::Words,
            size: 2_500_000_000,
            on_gpu: 0,
            remote: None,
            reasoning: "Let me look at the rows one by one.".to_owned(),
            behaviour,
        }
    }

    /// The same on the native way.
    #[must_use]
    pub fn native(mut self) -> Self {
        self.way = Way::Native;
        self
    }

    /// The same, thinking unless told not to.
    #[must_use]
    pub fn thinking(mut self) -> Self {
        self.capabilities.push("thinking".to_owned());
        self
    }

    fn is_harmony(&self) -> bool {
        matches!(self.family.as_str(), "gptoss" | "gpt-oss")
    }

    fn can(&self, capability: &str) -> bool {
        self.capabilities.iter().any(|one| one == capability)
    }

    fn digest(&self) -> String {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        self.name.bytes().for_each(|byte| hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        format!("{hash:016x}").repeat(4)
    }
}

/// How long things take. Nothing by default.
#[derive(Clone, Copy, Debug, Default)]
pub struct Delays {
    /// Loading a model.
    pub load: Duration,
    /// Reading the prompt.
    pub prompt: Duration,
    /// Each token of the answer.
    pub token: Duration,
}

/// How the server is set up.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its version.
    pub version: (u32, u32, u32),
    /// Whether the abort of repeated tokens is an error (from some version after 10 September 2026).
    pub repeat_is_error: bool,
    /// Installed models.
    pub models: Vec<Model>,
    /// `OLLAMA_CONTEXT_LENGTH`.
    pub context_length: Option<u32>,
    /// Memory of the GPU, which decides the window when nobody else does.
    pub vram_gib: u32,
    /// `OLLAMA_NUM_PARALLEL`.
    pub parallel: u32,
    /// `OLLAMA_MAX_QUEUE`.
    pub max_queue: usize,
    /// `OLLAMA_MAX_LOADED_MODELS`.
    pub max_loaded: usize,
    /// `OLLAMA_KEEP_ALIVE`.
    pub keep_alive: Duration,
    /// Whether models elsewhere may be used.
    pub cloud: bool,
    /// Speeds that are reported, in tokens a second: of reading and of writing.
    pub speeds: (u64, u64),
    /// How long things take.
    pub delays: Delays,
    /// Fields nobody knows, `families: null`, dates in 2318 and no figures.
    pub odd: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            version: (0, 33, 0),
            repeat_is_error: false,
            models: Vec::new(),
            context_length: None,
            vram_gib: 0,
            parallel: 1,
            max_queue: 512,
            max_loaded: 3,
            keep_alive: Duration::from_secs(300),
            cloud: false,
            speeds: (500, 50),
            delays: Delays::default(),
            odd: false,
        }
    }
}

impl Config {
    /// A server with one model.
    pub fn with(model: Model) -> Self {
        Self { models: vec![model], ..Self::default() }
    }
}

/// What goes wrong with one chat request that would have been answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// An error line after this many chunks; as a status 500 when there was none.
    ErrorLine(usize, String),
    /// The body ends after this many chunks, without `done: true`.
    Eof(usize),
    /// `done_reason: "length"` after this many bytes of the answer.
    Length(usize),
    /// The window's edge: `done: true` and this reason.
    DoneReason(String),
    /// Blanks without end, in this many chunks.
    Whitespace(usize),
    /// One phrase again and again, this often, inside a string.
    Loop(String, usize),
    /// The answer in a Markdown fence.
    Fenced,
    /// Words before the answer.
    Prose(String),
    /// This answer, whatever was asked.
    Answer(String),
    /// Nothing is sent, ever.
    StallBeforeHeaders,
    /// Nothing more is sent after this many chunks.
    StallAfter(usize),
    /// The connection breaks after this many chunks.
    Reset(usize),
    /// Everything in one segment.
    Coalesced,
    /// Segments of this many bytes, wherever that cuts.
    Split(usize),
    /// This status with this content type and body.
    Status(u16, String, String),
    /// Out of memory; the next request finds no model loaded.
    OutOfMemory,
    /// The last line has no figures.
    NoFigures,
    /// The figures of the prompt are these.
    PromptCount(u64),
    /// Fields that nobody knows.
    ExtraFields,
    /// Says that the model runs elsewhere.
    Remote,
    /// One line of this many bytes.
    LongLine(usize),
}

impl Fault {
    /// A full load queue.
    pub fn busy() -> Self {
        Self::json(503, r#"{"error":"server busy, please try again.  maximum pending requests exceeded"}"#)
    }

    /// A proxy whose upstream is gone.
    pub fn bad_gateway() -> Self {
        let body = "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>nginx</body>\r\n</html>\r\n";
        Self::Status(502, "text/html".to_owned(), body.to_owned())
    }

    /// An answer with a JSON body.
    pub fn json(status: u16, body: &str) -> Self {
        Self::Status(status, "application/json; charset=utf-8".to_owned(), body.to_owned())
    }
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Request {
    /// Its method.
    pub method: String,
    /// Its path and query.
    pub path: String,
    /// Its headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Its body, byte for byte.
    pub body: Vec<u8>,
}

impl Request {
    /// The body as JSON; `null` when it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// What happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Runners started.
    pub loads: usize,
    /// Of those, because options that matter at loading had changed.
    pub reloads: usize,
    /// Loads given up because the client left: the work is lost.
    pub aborted_loads: usize,
    /// Answers given up because the client left.
    pub cancelled: usize,
    /// Answers in which the window was full and older tokens were thrown away.
    pub shifted: usize,
    /// Requests refused because the load queue was full.
    pub refused: usize,
    /// Most requests at one time in one model.
    pub most_at_once: usize,
}

struct State {
    config: Config,
    clock: Duration,
    faults: VecDeque<Fault>,
    requests: Vec<Request>,
    seen: Vec<String>,
    counters: Counters,
}

/// What requests share.
struct Shared {
    state: Mutex<State>,
    runners: Runners,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The server; it stops when dropped.
pub struct FakeOllama {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl FakeOllama {
    /// Starts on a free port of the loopback.
    pub async fn start(config: Config) -> Self {
        #[expect(clippy::expect_used, reason = "a test without a loopback cannot run")]
        Self::listen("127.0.0.1:0", config).await.expect("the loopback has a free port")
    }

    /// Starts at an address.
    ///
    /// # Errors
    ///
    /// When it is taken.
    pub async fn listen(address: &str, config: Config) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let state = State {
            config,
            clock: Duration::ZERO,
            faults: VecDeque::new(),
            requests: Vec::new(),
            seen: Vec::new(),
            counters: Counters::default(),
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), runners: Runners::default() });
        let task = tokio::spawn(server::serve(listener, shared.clone()));
        Ok(Self { address, shared, task })
    }

    /// Scheme, host and port.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The next chat request that has messages gets this fault; several queue up.
    pub fn inject(&self, fault: Fault) {
        self.shared.lock().faults.push_back(fault);
    }

    /// Takes back the faults that nobody has met yet.
    pub fn take_faults(&self) -> Vec<Fault> {
        self.shared.lock().faults.drain(..).collect()
    }

    /// Changes the set-up.
    pub fn configure(&self, change: impl FnOnce(&mut Config)) {
        change(&mut self.shared.lock().config);
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.lock().requests.clone()
    }

    /// The bodies of the chat requests that had messages.
    pub fn chats(&self) -> Vec<serde_json::Value> {
        let chats =
            self.requests().into_iter().filter(|request| request.path == "/api/chat").map(|request| request.json());
        chats.filter(|body| body["messages"].as_array().is_some_and(|messages| !messages.is_empty())).collect()
    }

    /// The prompts as the scripted models saw them: after truncation.
    pub fn seen(&self) -> Vec<String> {
        self.shared.lock().seen.clone()
    }

    /// What happened so far.
    pub fn counters(&self) -> Counters {
        self.shared.lock().counters
    }

    /// Moves the clock by which models are unloaded.
    pub fn advance(&self, by: Duration) {
        self.shared.lock().clock += by;
    }

    /// Waits until `done` says so, for at most ten seconds.
    pub async fn until(&self, done: impl Fn(&Counters) -> bool) -> bool {
        for _ in 0..2000 {
            if done(&self.counters()) {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        false
    }
}

impl Drop for FakeOllama {
    fn drop(&mut self) {
        self.task.abort();
    }
}
