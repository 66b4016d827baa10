//! The classifier.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use logwarden_core::{
    ProfileName,
    classifier::{Classifier, ClassifyError, Judgement, Usage},
    digest::{Capacity, Digest},
    env::Env,
    error::chain,
    profile::Profile,
    prompt, reply,
};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use tokio::{
    sync::{Mutex as AsyncMutex, Semaphore, SemaphorePermit},
    task::JoinHandle,
    time::Instant,
};

use crate::{
    ask::{self, Answer, Patience, Received},
    calibration::{Calibration, Sample},
    host::BaseUrl,
    limits::{self, Ceilings, Hours},
    model::{self, Model},
    refusal::Refusal,
    transport::Transport,
    wire::{Chat, Chunk, KeepAlive, Message, Models, Options, Shown, Version},
};

/// The part of the window that stays empty, whatever the estimates say.
const SPARE: f64 = 0.05;
/// An answer that may have fewer tokens than this is not worth asking for.
const SHORTEST_ANSWER: f64 = 300.0;
/// So few tokens of rows are always offered: fewer would only repeat the static part.
const LEAST_ROW_TOKENS: f64 = 300.0;
/// Rows in one table: more than that and small models lose count.
const MOST_ROWS: u32 = 120;
/// What was looked up about a model is looked up again after this.
const KNOWN_FOR: Duration = Duration::from_secs(600);
/// A model that answered this recently is taken to be loaded.
const WARM_FOR: Duration = Duration::from_secs(60);
const SHORT_CALL: Duration = Duration::from_secs(10);
/// `/api/ps` may block while a model is being unloaded.
const PS_CALL: Duration = Duration::from_secs(15);
const BUSY_RETRIES: u32 = 3;

/// What was said and answered, for debugging. Both texts hold log lines: whoever keeps them must redact them.
#[derive(Clone, Copy, Debug)]
pub enum Exchange<'a> {
    /// The body of a request.
    Prompt(&'a str),
    /// An answer as it came, whole or cut off.
    Response(&'a str),
}

/// Receives every exchange.
pub type Trail = Arc<dyn Fn(Exchange<'_>) + Send + Sync>;

/// Why a client could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A header that HTTP does not allow.
    #[error("header `{name}` for Ollama has a name or a value that HTTP does not allow")]
    Header {
        /// Its name.
        name: String,
    },
    /// A file with certificates that holds none.
    #[error("the certificate authority of Ollama's proxy is no PEM")]
    Certificate,
    /// The TLS library refused.
    #[error("cannot set up connections to Ollama")]
    Tls(#[source] reqwest::Error),
}

impl BuildError {
    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Header { .. } => Some("a token is one line of visible characters"),
            Self::Certificate => Some("it begins with `-----BEGIN CERTIFICATE-----`"),
            Self::Tls(_) => None,
        }
    }
}

/// Settings of an [`Ollama`]; all have defaults.
#[must_use]
pub struct Builder {
    base: BaseUrl,
    env: Arc<dyn Env>,
    headers: Vec<(String, SecretString)>,
    ca_pem: Option<Vec<u8>>,
    connect: Duration,
    settings: Settings,
    calibration: Calibration,
}

struct Settings {
    model: Option<String>,
    num_ctx: u32,
    keep_alive: Option<KeepAlive>,
    timeout: Option<Duration>,
    between: Duration,
    load_timeout: Duration,
    target: Duration,
    backoff: Duration,
    waiting: usize,
    ceilings: Ceilings,
    hours: Option<Hours>,
    allow_cloud: Option<String>,
    trail: Option<Trail>,
}

impl Builder {
    /// The model's name; otherwise the best installed one of [`RECOMMENDED`](crate::RECOMMENDED).
    pub fn model(mut self, name: impl Into<String>) -> Self {
        self.settings.model = Some(name.into());
        self
    }

    /// The window to ask for, 8192 by default. The same for all calls: another one makes the server load the model again.
    pub fn num_ctx(mut self, tokens: u32) -> Self {
        self.settings.num_ctx = tokens.max(1024);
        self
    }

    /// How long the server keeps the model loaded after an answer, ten minutes by default. `None` leaves it to the server.
    pub fn keep_alive(mut self, keep_alive: Option<KeepAlive>) -> Self {
        self.settings.keep_alive = keep_alive;
        self
    }

    /// How long one answer may take, without loading. By default it follows from the measured speed.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.settings.timeout = Some(timeout);
        self
    }

    /// How long the server may be silent in the middle of an answer, two minutes by default.
    pub fn stall_timeout(mut self, timeout: Duration) -> Self {
        self.settings.between = timeout;
        self
    }

    /// How long connecting may take, five seconds by default.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect = timeout;
        self
    }

    /// How long loading the model may take, fifteen minutes by default. Generous: giving up throws the work away.
    pub fn load_timeout(mut self, timeout: Duration) -> Self {
        self.settings.load_timeout = timeout;
        self
    }

    /// How soon an answer is aimed at, a minute by default: the tables get as long as the measured speed allows.
    pub fn target(mut self, target: Duration) -> Self {
        self.settings.target = target;
        self
    }

    /// The first pause after a busy server, a second by default; it doubles, and is varied by chance.
    pub fn backoff(mut self, pause: Duration) -> Self {
        self.settings.backoff = pause;
        self
    }

    /// How many questions may wait for the one that is being answered, eight by default.
    pub fn waiting(mut self, questions: usize) -> Self {
        self.settings.waiting = questions;
        self
    }

    /// The most that may be asked.
    pub fn ceilings(mut self, ceilings: Ceilings) -> Self {
        self.settings.ceilings = ceilings;
        self
    }

    /// The hours in which the model may work; always by default.
    pub fn hours(mut self, hours: Hours) -> Self {
        self.settings.hours = Some(hours);
        self
    }

    /// The one model that may be used although it runs elsewhere. Log lines then leave the machine.
    pub fn allow_cloud(mut self, name: impl Into<String>) -> Self {
        self.settings.allow_cloud = Some(name.into());
        self
    }

    /// A header for a proxy before Ollama. It is sent to the base address only and never shown.
    pub fn header(mut self, name: impl Into<String>, value: SecretString) -> Self {
        self.headers.push((name.into(), value));
        self
    }

    /// A bearer token for a proxy before Ollama.
    pub fn bearer(self, token: &SecretString) -> Self {
        self.header("authorization", SecretString::from(format!("Bearer {}", token.expose_secret())))
    }

    /// Certificates (PEM) that are trusted besides the system's, for a proxy before Ollama.
    pub fn ca_pem(mut self, pem: Vec<u8>) -> Self {
        self.ca_pem = Some(pem);
        self
    }

    /// Receives every prompt and every answer.
    pub fn trail(mut self, trail: Trail) -> Self {
        self.settings.trail = Some(trail);
        self
    }

    /// What was measured before, as [`Ollama::calibration`] gave it.
    pub fn calibration(mut self, calibration: Calibration) -> Self {
        self.calibration = calibration;
        self
    }

    /// Makes the client; it connects when it is first used.
    ///
    /// # Errors
    ///
    /// When a header or a certificate is none, or TLS cannot be set up.
    pub fn build(self) -> Result<Ollama, BuildError> {
        let mut headers = HeaderMap::new();
        if let Some((user, password)) = self.base.credentials() {
            let pair = format!("{user}:{}", password.expose_secret());
            let value = format!("Basic {}", base64(pair.as_bytes()));
            headers.insert(AUTHORIZATION, sensitive("authorization", &value)?);
        }
        for (name, value) in &self.headers {
            let key = HeaderName::try_from(name).map_err(|_| BuildError::Header { name: name.clone() })?;
            headers.insert(key, sensitive(name, value.expose_secret())?);
        }
        let authorities = match &self.ca_pem {
            Some(pem) => {
                let read = reqwest::Certificate::from_pem_bundle(pem).ok();
                read.filter(|certificates| !certificates.is_empty()).ok_or(BuildError::Certificate)?
            }
            None => Vec::new(),
        };
        let transport = Transport::new(self.base, headers, authorities, self.connect).map_err(BuildError::Tls)?;
        let inner = Inner {
            transport,
            env: self.env,
            settings: self.settings,
            known: Mutex::new(None),
            calibration: Mutex::new(self.calibration),
            seat: Semaphore::new(1),
            waiting: AtomicUsize::new(0),
            load: AsyncMutex::new(None),
        };
        Ok(Ollama(Arc::new(inner)))
    }
}

fn sensitive(name: &str, value: &str) -> Result<HeaderValue, BuildError> {
    let mut value = HeaderValue::try_from(value).map_err(|_| BuildError::Header { name: name.to_owned() })?;
    value.set_sensitive(true);
    Ok(value)
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0_u32, |bits, byte| (bits << 8) | u32::from(*byte)) << (8 * (3 - group.len()));
        for place in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * place)) as usize & 63];
            text.push(if place > group.len() { '=' } else { char::from(letter) });
        }
    }
    text
}

/// Asks a model through one Ollama. Clones share everything.
#[derive(Clone)]
pub struct Ollama(pub(crate) Arc<Inner>);

impl fmt::Debug for Ollama {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &self.0;
        f.debug_struct("Ollama")
            .field("origin", &inner.origin())
            .field("model", &inner.settings.model)
            .finish_non_exhaustive()
    }
}

pub(crate) struct Inner {
    pub(crate) transport: Transport,
    env: Arc<dyn Env>,
    settings: Settings,
    known: Mutex<Option<Known>>,
    calibration: Mutex<Calibration>,
    /// Ollama's own queue has no end and says nothing: we wait here.
    seat: Semaphore,
    waiting: AtomicUsize,
    /// A load goes on when the one who asked for it leaves; it ends with this client.
    load: AsyncMutex<Option<JoinHandle<Result<Duration, Refusal>>>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(load) = self.load.get_mut().take() {
            load.abort();
        }
    }
}

/// What was looked up.
#[derive(Clone)]
struct Known {
    model: Arc<Model>,
    version: (u32, u32, u32),
    /// The window that is really there.
    window: u32,
    looked_up: Instant,
    warm_until: Option<Instant>,
    /// The system message that the server has in its cache.
    system: Option<blake3::Hash>,
}

/// What one question consists of.
struct Question<'a> {
    system: &'a str,
    user: &'a str,
    schema: &'a Value,
    num_predict: u32,
    estimate: f64,
}

impl Ollama {
    /// Settings for an Ollama at this address.
    pub fn builder(base: BaseUrl, env: Arc<dyn Env>) -> Builder {
        Builder {
            base,
            env,
            headers: Vec::new(),
            ca_pem: None,
            connect: Duration::from_secs(5),
            settings: Settings {
                model: None,
                num_ctx: 8192,
                keep_alive: Some(KeepAlive::Text("10m".to_owned())),
                timeout: None,
                between: Duration::from_secs(120),
                load_timeout: Duration::from_secs(900),
                target: Duration::from_secs(60),
                backoff: Duration::from_secs(1),
                waiting: 8,
                ceilings: Ceilings::default(),
                hours: None,
                allow_cloud: None,
                trail: None,
            },
            calibration: Calibration::default(),
        }
    }

    /// What was measured and spent so far, to be kept and given to [`Builder::calibration`] in the next run.
    pub fn calibration(&self) -> Calibration {
        self.0.measured().clone()
    }

    /// Finds the model and loads it, if it is not loaded; answers with its name. Loading goes on when the future is
    /// dropped, and the next call waits for it.
    ///
    /// # Errors
    ///
    /// As [`Classifier::classify`].
    pub async fn warm_up(&self) -> Result<String, ClassifyError> {
        let inner = &self.0;
        let ready = async {
            let _seat = inner.take_seat().await?;
            let known = inner.look_up().await?;
            inner.warm(known).await
        };
        ready.await.map(|known| known.model.name.clone()).map_err(|refusal| refusal.into_error(&inner.origin()))
    }
}

#[async_trait]
impl Classifier for Ollama {
    fn capacity(&self) -> Capacity {
        let inner = &self.0;
        let window = f64::from(inner.known().map_or(inner.settings.num_ctx, |known| known.window));
        let calibration = inner.measured();
        let fixed = prompt::system(&plain_profile()).len() as f64 + 1000.0;
        let room = window * (1.0 - SPARE) - f64::from(num_predict(window)) - calibration.estimate(fixed as usize, 0);
        let target = inner.settings.target.as_secs_f64();
        let reading_time = (target - calibration.answer() / calibration.writing()).max(target / 4.0);
        let in_time = calibration.reading() * reading_time;
        Capacity {
            row_tokens: in_time.min(room).max(LEAST_ROW_TOKENS.min(room.max(64.0))) as u32,
            chars_per_token: calibration.chars_per_token() as f32,
            rows: MOST_ROWS,
        }
    }

    /// Of the model's digest, where it is known from the server or from an earlier run, else of its name; of the prompt
    /// and the schema. The profile is not in it: verdicts are kept per profile anyway.
    fn fingerprint(&self) -> String {
        let inner = &self.0;
        let calibration = inner.measured();
        let configured = inner.settings.model.as_deref();
        let measured =
            configured.is_none_or(|name| model::same(name, &calibration.model)) && !calibration.digest.is_empty();
        let model = match inner.known() {
            Some(known) => identity(&known.model),
            None if measured => calibration.digest.clone(),
            None => configured.unwrap_or_default().to_owned(),
        };
        let text = format!("{model}\n{}", prompt::version(&plain_profile()));
        blake3::hash(text.as_bytes()).to_hex()[..16].to_owned()
    }

    /// Looks the model up, which tells its digest and its window; loads nothing.
    async fn prepare(&self) {
        let inner = &self.0;
        if inner.gate().is_ok()
            && let Err(refusal) = inner.look_up().await
        {
            tracing::debug!(error = %chain(&refusal), "the model could not be looked up");
        }
    }

    async fn classify(&self, digest: &Digest) -> Result<Judgement, ClassifyError> {
        let inner = &self.0;
        inner.gate()?;
        let mut usage = Usage::default();
        let judged = inner.judge(digest, &mut usage).await;
        usage.fingerprint = self.fingerprint();
        match judged {
            Ok(answer) => {
                usage.refused = answer.refused;
                Ok(Judgement { verdict: answer.verdict, usage })
            }
            Err(Stop::Refused(refusal)) => Err(refusal.into_error(&inner.origin())),
            Err(Stop::Resting(error)) => Err(error),
        }
    }
}

/// Why nothing more is tried.
enum Stop {
    Refused(Refusal),
    /// A ceiling was reached between two tries.
    Resting(ClassifyError),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl Inner {
    pub(crate) fn origin(&self) -> String {
        self.transport.base.origin()
    }

    pub(crate) fn wanted(&self) -> Option<&str> {
        self.settings.model.as_deref()
    }

    pub(crate) fn num_ctx(&self) -> u32 {
        self.settings.num_ctx
    }

    pub(crate) fn allowed_cloud(&self) -> Option<&str> {
        self.settings.allow_cloud.as_deref()
    }

    fn measured(&self) -> MutexGuard<'_, Calibration> {
        self.calibration.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self) -> Option<Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn know(&self, known: Option<Known>) {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = known;
    }

    fn gate(&self) -> Result<(), ClassifyError> {
        limits::gate(self.env.now(), self.settings.hours, &self.settings.ceilings, &self.measured())
    }

    async fn take_seat(&self) -> Result<SemaphorePermit<'_>, Refusal> {
        if let Ok(seat) = self.seat.try_acquire() {
            return Ok(seat);
        }
        let waiting = Waiting(&self.waiting);
        if self.waiting.fetch_add(1, Ordering::AcqRel) >= self.settings.waiting {
            return Err(Refusal::Queue);
        }
        let seat = self.seat.acquire().await.map_err(|_| Refusal::Busy)?;
        drop(waiting);
        Ok(seat)
    }

    /// Which model it is and what it can do.
    async fn look_up(&self) -> Result<Known, Refusal> {
        if let Some(known) = self.known().filter(|known| known.looked_up.elapsed() < KNOWN_FOR) {
            return Ok(known);
        }
        let allowed = self.allowed_cloud();
        if let Some(name) = self.wanted() {
            model::refuse_cloud(name, None, allowed)?;
        }
        let version: Version = self.transport.get("/api/version", SHORT_CALL).await?;
        let installed: Models = self.transport.get("/api/tags", SHORT_CALL).await?;
        let entry = model::choose(&installed.models, self.wanted()).ok_or_else(|| self.none())?;
        let remote = entry.remote_host.as_deref().or(entry.remote_model.as_deref());
        model::refuse_cloud(&entry.name, remote, allowed)?;
        let shown: Shown =
            self.transport.post("/api/show", &json!({ "model": entry.name }), &entry.name, SHORT_CALL).await?;
        let remote = shown.remote_host.as_deref().or(shown.remote_model.as_deref());
        model::refuse_cloud(&entry.name, remote, allowed)?;
        let model = Model::new(entry, shown);
        let before = self.known().filter(|before| *before.model == model);
        self.measured().about(&model.name, &identity(&model));
        let known = Known {
            window: model.trained.unwrap_or(u32::MAX).min(self.settings.num_ctx),
            version: version_of(&version.version),
            model: Arc::new(model),
            looked_up: Instant::now(),
            warm_until: before.as_ref().and_then(|before| before.warm_until),
            system: before.and_then(|before| before.system),
        };
        self.know(Some(known.clone()));
        Ok(known)
    }

    fn none(&self) -> Refusal {
        match self.wanted() {
            Some(name) => Refusal::Missing(name.to_owned()),
            None => Refusal::Hinted {
                reason: "none of the recommended models is installed".to_owned(),
                hint: "ollama pull qwen3:4b-instruct (or name an installed one in OLLAMA_MODEL)",
            },
        }
    }

    /// Sees to it that the model is loaded with our window.
    async fn warm(&self, mut known: Known) -> Result<Known, Refusal> {
        let remote = model::is_cloud_name(&known.model.name);
        if remote || known.warm_until.is_some_and(|until| Instant::now() < until) {
            return Ok(known);
        }
        let mut load = self.load.lock().await;
        if load.is_none() {
            if self.resident(&mut known).await? {
                drop(load);
                known.warm_until = Some(Instant::now() + WARM_FOR);
                self.know(Some(known.clone()));
                return Ok(known);
            }
            known.system = None;
            tracing::info!(model = %known.model.name, num_ctx = known.window, "loading the model");
            let body = json!({
                "model": known.model.name, "messages": [], "stream": false,
                "options": { "num_ctx": self.settings.num_ctx }, "keep_alive": self.settings.keep_alive,
            });
            let (transport, name, within) = (self.transport.clone(), known.model.name.clone(), self.load_patience());
            *load = Some(tokio::spawn(async move {
                let started = Instant::now();
                transport.post::<Value>("/api/chat", &body, &name, within).await?;
                Ok(started.elapsed())
            }));
        }
        let Some(handle) = load.as_mut() else { return Ok(known) };
        let loaded = handle.await;
        *load = None;
        drop(load);
        let took = loaded.unwrap_or_else(|_| Err(Refusal::Crashed("loading was given up".to_owned())))?;
        self.measured().loaded_in(took.as_secs_f64());
        self.resident(&mut known).await?;
        known.warm_until = Some(Instant::now() + WARM_FOR);
        self.know(Some(known.clone()));
        Ok(known)
    }

    fn load_patience(&self) -> Duration {
        self.settings.load_timeout.max(Duration::from_secs_f64(self.measured().loading() * 2.0))
    }

    /// Whether the model is loaded with the window that we ask for. When it got less than that, we live with it.
    async fn resident(&self, known: &mut Known) -> Result<bool, Refusal> {
        let running: Models = self.transport.get("/api/ps", PS_CALL).await?;
        let Some(entry) = running.models.iter().find(|entry| model::same(&entry.name, &known.model.name)) else {
            return Ok(false);
        };
        let wanted = known.model.trained.unwrap_or(u32::MAX).min(self.settings.num_ctx);
        let got = entry.context_length.map_or(wanted, |length| u32::try_from(length).unwrap_or(u32::MAX));
        known.window = got.min(wanted);
        Ok(got == wanted)
    }

    /// Asks until there is an answer that counts, or nothing more to try.
    async fn judge(&self, digest: &Digest, usage: &mut Usage) -> Result<reply::Answer, Stop> {
        let _seat = self.take_seat().await?;
        let mut known = self.warm(self.look_up().await?).await?;
        usage.model.clone_from(&known.model.name);
        let system = prompt::system(&digest.profile);
        let user = prompt::user(digest, self.env.random());
        let mut schema = reply::schema(digest.rows.len());
        let (mut simplified, mut varied, mut busy, mut crashed) = (false, false, 0, false);
        loop {
            let window = f64::from(known.window);
            let estimate = self.measured().estimate(system.len(), user.len());
            let room = window * (1.0 - SPARE) - estimate;
            if room < SHORTEST_ANSWER {
                return Err(Refusal::Overflow { tokens: estimate as u32, window: known.window }.into());
            }
            let num_predict = num_predict(window).min(room as u32);
            let question = Question { system: &system, user: &user, schema: &schema, num_predict, estimate };
            if usage.calls > 0 {
                self.gate().map_err(Stop::Resting)?;
            }
            usage.calls += 1;
            let answer = self.once(&known, &question, varied, usage).await;
            let read = answer.and_then(|answer| self.accept(&known, &question, &answer, digest));
            let refusal = match read {
                Ok(answer) => return Ok(answer),
                Err(refusal) => refusal,
            };
            tracing::debug!(model = %known.model.name, error = %chain(&refusal), "a question was not answered");
            match refusal {
                Refusal::Grammar(_) if !simplified => {
                    simplified = true;
                    schema = ask::simplified(&schema);
                }
                ref unusable if unusable.is_unusable() && !varied => varied = true,
                Refusal::Busy if busy < BUSY_RETRIES => {
                    self.pause(busy).await;
                    busy += 1;
                }
                ref momentary if momentary.is_momentary() && !matches!(momentary, Refusal::Busy) && !crashed => {
                    crashed = true;
                    self.pause(0).await;
                    known.warm_until = None;
                    known = self.warm(known).await?;
                }
                Refusal::Overflow { tokens, window } => {
                    let tokens = if tokens > 0 { tokens } else { estimate as u32 };
                    let window = if window > 0 { window } else { known.window };
                    self.measured().learn_overflow(system.len(), user.len(), tokens);
                    return Err(Refusal::Overflow { tokens, window }.into());
                }
                refusal => {
                    if matches!(refusal, Refusal::Missing(_) | Refusal::Memory(_) | Refusal::Silent { .. }) {
                        self.know(None);
                    }
                    return Err(refusal.into());
                }
            }
        }
    }

    async fn pause(&self, before: u32) {
        let pause = self.settings.backoff.saturating_mul(1 << before.min(6));
        // Between half of it and one and a half.
        let chance = (self.env.random() % 1000) as f64 / 1000.0;
        tokio::time::sleep(pause.mul_f64(0.5 + chance)).await;
    }

    /// One request and what came back.
    async fn once(
        &self,
        known: &Known,
        question: &Question<'_>,
        varied: bool,
        usage: &mut Usage,
    ) -> Result<Answer, Refusal> {
        let messages =
            [Message { role: "system", content: question.system }, Message { role: "user", content: question.user }];
        let chat = Chat {
            model: &known.model.name,
            messages: &messages,
            stream: true,
            format: Some(question.schema),
            options: Options {
                num_ctx: self.settings.num_ctx,
                num_predict: question.num_predict,
                temperature: if varied { 0.3 } else { 0.0 },
                seed: if varied { 2 } else { 1 },
                repeat_penalty: 1.0,
            },
            keep_alive: self.settings.keep_alive.as_ref(),
            truncate: false,
            think: known.model.think(),
        };
        let body = serde_json::to_string(&chat).unwrap_or_default();
        self.tell(Exchange::Prompt(&body));
        self.measured().spend(self.env.now(), 1, 0);
        let (started, patience) = (Instant::now(), self.patience(question));
        let first = patience.first.min(patience.total);
        let mut received = Received::default();
        let sent = self.transport.stream("/api/chat", body.into_bytes(), &known.model.name, first).await;
        let answer = match sent {
            Ok(response) => {
                let name = &known.model.name;
                ask::read(response, started, patience, reply::MAX_BYTES, name, self.allowed_cloud(), &mut received)
                    .await
            }
            Err(refusal) => Err(refusal),
        };
        self.tell(Exchange::Response(&received.content));
        match &answer {
            Err(Refusal::Silent { after, .. }) if received.pieces == 0 => {
                self.measured().too_slow(Some((question.estimate, after.as_secs_f64())), None);
            }
            Err(Refusal::Slow(after)) => {
                self.measured().too_slow(None, Some((received.pieces as f64, after.as_secs_f64())));
            }
            _ => {}
        }
        // An answer that was cut has no figures, but the prompt was read.
        let guess = if received.pieces > 0 { question.estimate as u64 } else { 0 };
        let (read, written) = (received.read.unwrap_or(guess), received.written.unwrap_or(received.pieces));
        usage.prompt_tokens = usage.prompt_tokens.saturating_add(read);
        usage.answer_tokens = usage.answer_tokens.saturating_add(written);
        self.measured().spend(self.env.now(), 0, read.saturating_add(written));
        // Before anything else: whatever it says, it is not about what was asked.
        let count = received.read.filter(|_| !received.thought);
        if count.is_some_and(|count| self.was_cut(count as f64, known, question)) {
            return Err(Refusal::Overflow { tokens: question.estimate as u32, window: known.window });
        }
        answer
    }

    fn tell(&self, exchange: Exchange<'_>) {
        if let Some(trail) = &self.settings.trail {
            trail(exchange);
        }
    }

    /// How long to wait, from what was measured.
    fn patience(&self, question: &Question<'_>) -> Patience {
        let calibration = self.measured();
        let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
        let first = match calibration.is_measured() {
            true => Duration::from_secs_f64((question.estimate / calibration.reading() * 3.0).clamp(60.0, 600.0)),
            false => minutes(10),
        };
        let writing = f64::from(question.num_predict) / calibration.writing() * 2.0;
        let total = first + Duration::from_secs_f64(writing.clamp(30.0, 1200.0));
        Patience { first, between: self.settings.between, total: self.settings.timeout.unwrap_or(total) }
    }

    /// Believes an answer when the model saw the whole question and kept to the form.
    fn accept(
        &self,
        known: &Known,
        question: &Question<'_>,
        answer: &Answer,
        digest: &Digest,
    ) -> Result<reply::Answer, Refusal> {
        let last = &answer.last;
        let all = last.prompt_eval_count.unwrap_or(0).saturating_add(last.eval_count.unwrap_or(0));
        if all >= u64::from(known.window) && !answer.thought {
            return Err(Refusal::Answer("the window was full before it was finished".to_owned()));
        }
        let read = reply::parse(&answer.content, digest, &known.model.name);
        let read = read.map_err(|error| Refusal::Answer(error.to_string()))?;
        self.learn(known, question, answer);
        Ok(read)
    }

    /// Whether the server's count of the prompt shows that it dropped a part of it.
    fn was_cut(&self, count: f64, known: &Known, question: &Question<'_>) -> bool {
        let window = f64::from(known.window);
        let least = self.measured().at_least(question.system.len(), question.user.len());
        // 0.30.0 counted only what was not cached.
        let far_too_few = known.version != (0, 30, 0) && count < 0.75 * least;
        let halves = [4.0, 5.0].map(|keep: f64| window - ((window - keep) / 2.0).floor());
        let half = halves.iter().any(|half| (count - half).abs() <= 2.0)
            && question.estimate > count * 1.3
            && least > count * 0.9;
        let full = count >= window - 1.0;
        far_too_few || half || full
    }

    fn learn(&self, known: &Known, question: &Question<'_>, answer: &Answer) {
        let hash = blake3::hash(question.system.as_bytes());
        let last = &answer.last;
        let reloaded = last.load_duration.is_some_and(|nanos| nanos > 3_000_000_000);
        if let (Some(count), false) = (last.prompt_eval_count, answer.thought) {
            let seconds = |nanos: Option<u64>| nanos.unwrap_or(0) as f64 / 1e9;
            self.measured().learn(&Sample {
                static_chars: question.system.len(),
                row_chars: question.user.len(),
                prompt_tokens: count,
                cached: known.system == Some(hash) && !reloaded,
                reading_seconds: seconds(last.prompt_eval_duration),
                answer_tokens: last.eval_count.unwrap_or(0),
                writing_seconds: seconds(last.eval_duration),
            });
        }
        if reloaded {
            self.measured().loaded_in(load_seconds(last));
        }
        let mut now = known.clone();
        now.system = Some(hash);
        now.warm_until = Some(Instant::now() + WARM_FOR);
        self.know(Some(now));
    }
}

fn load_seconds(last: &Chunk) -> f64 {
    last.load_duration.unwrap_or(0) as f64 / 1e9
}

/// Gives the place in the queue back.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The most tokens that are asked for in an answer.
fn num_predict(window: f64) -> u32 {
    ask::most_tokens(&reply::schema(MOST_ROWS as usize)).min(window / 3.0) as u32
}

fn plain_profile() -> Profile {
    Profile::new(ProfileName::general(), "")
}

/// The digest of a model, or its name where the server does not tell one.
fn identity(model: &Model) -> String {
    if model.digest.is_empty() { model.name.clone() } else { model.digest.clone() }
}

/// `0.33.0-rc2` as numbers; nought where it is none.
pub(crate) fn version_of(text: &str) -> (u32, u32, u32) {
    let number = text.trim_start_matches('v').split(['-', '+']).next().unwrap_or_default();
    let mut parts = number.split('.').map(|part| part.parse().unwrap_or(0));
    let mut next = || parts.next().unwrap_or(0);
    (next(), next(), next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn basic_credentials_are_encoded() {
        for (plain, encoded) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("me:s3cret", "bWU6czNjcmV0")]
        {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
    }

    #[test]
    fn versions_are_read_whatever_follows_them() {
        assert_eq!(version_of("0.33.0-rc2"), (0, 33, 0));
        assert_eq!(version_of("v0.6"), (0, 6, 0));
        assert_eq!(version_of("dev"), (0, 0, 0));
    }
}
