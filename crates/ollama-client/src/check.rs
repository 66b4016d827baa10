//! What `doctor` looks at: whether this Ollama can do the work, and what to do if not.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use logwarden_core::error::chain;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{net::UdpSocket, time::Instant};

use crate::{
    Ollama,
    ask::{self, Patience, Received},
    model::{self, Model},
    ollama::version_of,
    refusal::Refusal,
    wire::{Chat, Entry, Message, Models, Options, Shown, Version},
};

const SHORT: Duration = Duration::from_secs(10);
/// From here on everything that we rely on works.
const FLOOR: (u32, u32, u32) = (0, 31, 2);
const PROBE_BYTES: usize = 4096;

/// How good something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// As it should be.
    Good,
    /// Works, but should be changed.
    Warning,
    /// Does not work.
    Bad,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// How good it is.
    pub level: Level,
    /// What was found.
    pub what: String,
    /// What to do.
    pub hint: Option<String>,
}

/// What is known about the machine that Ollama runs on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Machine {
    /// Bytes of memory.
    pub ram: u64,
    /// Bytes of memory of its GPU; 0 without one.
    pub gpu: u64,
    /// This machine's address in its network; found out when `None`.
    pub address: Option<IpAddr>,
}

impl Ollama {
    /// Looks at everything that must be right, in the order in which it matters. `probe` also asks the model about three
    /// lines, which loads it.
    pub async fn check(&self, machine: &Machine, probe: bool) -> Vec<Note> {
        let mut notes = Notes(Vec::new());
        let _ = self.look_at_all(machine, probe, &mut notes).await;
        notes.0
    }

    /// `None` when the rest cannot be looked at.
    async fn look_at_all(&self, machine: &Machine, probe: bool, notes: &mut Notes) -> Option<()> {
        let transport = &self.0.transport;
        let base = &transport.base;
        for note in base.notes() {
            notes.warn(format!("OLLAMA_HOST: {note}"), "write the address as http://HOST:PORT");
        }
        let version: Version = notes.ok(transport.get("/api/version", SHORT).await, &self.0.origin())?;
        let number = version_of(&version.version);
        if number < FLOOR && number != (0, 0, 0) {
            let (major, minor, patch) = FLOOR;
            notes.warn(
                format!("Ollama {} at {} is older than {major}.{minor}.{patch}", version.version, self.0.origin()),
                "update it: older ones ignore settings that keep prompts whole and thinking models quiet",
            );
        } else {
            notes.good(format!("Ollama {} at {}", version.version, self.0.origin()));
        }
        self.look_off_host(machine, notes).await;
        if base.is_plain() && !base.is_near() {
            notes.warn(
                "log lines travel unencrypted to Ollama".to_owned(),
                "put a proxy with TLS before it, or use a tunnel",
            );
        }
        let installed: Models = notes.ok(transport.get("/api/tags", SHORT).await, &self.0.origin())?;
        let (model, size) = self.look_at_model(&installed.models, machine, notes).await?;
        self.look_at_memory(size, machine, notes);
        if probe {
            self.probe(&model, notes).await;
        }
        self.look_at_window(&model, notes).await;
        Some(())
    }

    async fn look_at_model(&self, installed: &[Entry], machine: &Machine, notes: &mut Notes) -> Option<(Model, u64)> {
        let fitting = model::fitting(machine.ram, machine.gpu);
        if let Some(name) = self.0.wanted() {
            // Before anything else: nobody is told to pull what would be refused.
            notes.ok(model::refuse_cloud(name, None, self.0.allowed_cloud()), &self.0.origin())?;
        }
        let Some(entry) = model::choose(installed, self.0.wanted()) else {
            match self.0.wanted() {
                Some(name) => {
                    let others = match installed {
                        [] => String::new(),
                        _ => format!("; or name one that is installed: {}", names(installed)),
                    };
                    let hint = format!("ollama pull {name}{others}");
                    notes.bad(format!("model `{name}` is not installed"), &hint);
                }
                None => notes.bad(
                    "no recommended model is installed: findings come from the detectors alone".to_owned(),
                    &format!("ollama pull {fitting}"),
                ),
            }
            return None;
        };
        let shown = self.0.transport.post("/api/show", &json!({ "model": entry.name }), &entry.name, SHORT).await;
        let shown: Shown = notes.ok(shown, &self.0.origin())?;
        let remote = [&entry.remote_host, &entry.remote_model, &shown.remote_host, &shown.remote_model];
        let remote = remote.into_iter().flatten().next().cloned();
        let allowed = self.0.allowed_cloud();
        notes.ok(model::refuse_cloud(&entry.name, remote.as_deref(), allowed), &self.0.origin())?;
        if remote.is_some() || model::is_cloud_name(&entry.name) {
            notes.warn(
                format!("model `{}` runs elsewhere: log lines leave this machine", entry.name),
                "use a local model to keep them",
            );
        }
        let model = Model::new(entry, shown);
        if !model.capabilities.is_empty() && !model.capabilities.iter().any(|one| one == "completion") {
            notes.bad(format!("model `{}` cannot answer questions", model.name), &format!("ollama pull {fitting}"));
            return None;
        }
        let chosen = if self.0.wanted().is_none() { " (chosen among the installed ones)" } else { "" };
        let thinks = match (model.think(), model.thinks()) {
            (None, _) => "",
            (_, true) => "; it is told not to think, or only a little",
            (_, false) => "",
        };
        notes.good(format!("model `{}`{chosen}{thinks}", model.name));
        if let Some(trained) = model.trained.filter(|trained| *trained < self.0.num_ctx()) {
            notes.warn(
                format!("its window is {trained} tokens, less than the {} asked for", self.0.num_ctx()),
                &format!("set `model.num_ctx` to {trained}, or use a model with a larger window"),
            );
        }
        Some((model, entry.size))
    }

    fn look_at_memory(&self, size: u64, machine: &Machine, notes: &mut Notes) {
        if machine.ram == 0 || !self.0.transport.base.is_this_machine() {
            return;
        }
        let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
        if size.saturating_add(1 << 30) > machine.ram.saturating_add(machine.gpu) {
            notes.warn(
                format!("the model has {:.1} GiB and this machine {:.1} GiB of memory", gib(size), gib(machine.ram)),
                &format!("ollama pull {}", model::fitting(machine.ram, machine.gpu)),
            );
        }
        if gib(machine.ram) < 24.0 {
            notes.warn(
                "Ollama may take up to 8 GiB of memory for its cache of prompts, which no list shows".to_owned(),
                "add Environment=LLAMA_ARG_CACHE_RAM=512 to the ollama service (systemctl edit ollama)",
            );
        }
    }

    /// What is really there, as opposed to what was asked for.
    async fn look_at_window(&self, model: &Model, notes: &mut Notes) {
        let running: Models = match self.0.transport.get("/api/ps", Duration::from_secs(15)).await {
            Ok(running) => running,
            Err(refusal) => return notes.refused(refusal, &self.0.origin()),
        };
        let Some(entry) = running.models.iter().find(|entry| model::same(&entry.name, &model.name)) else {
            return notes.good("the model is not loaded now; the first answer takes longer".to_owned());
        };
        let wanted = model.trained.unwrap_or(u32::MAX).min(self.0.num_ctx());
        match entry.context_length {
            Some(length) if length != u64::from(wanted) => notes.warn(
                format!("the model is loaded with a window of {length} tokens, and we ask for {wanted}"),
                "use one `num_ctx` everywhere: each change makes Ollama load the model again",
            ),
            Some(length) => notes.good(format!("loaded with the window that we ask for, {length} tokens")),
            None => {}
        }
        if entry.size_vram > 0 && entry.size_vram < entry.size {
            let percent = (entry.size - entry.size_vram) as f64 * 100.0 / entry.size.max(1) as f64;
            notes.warn(
                format!("{percent:.0} % of the model is in ordinary memory, not on the GPU: answers are slow"),
                "set `model.num_ctx` lower, or use a smaller model",
            );
        }
    }

    /// Whether others in the network can use this Ollama: it has no authentication.
    async fn look_off_host(&self, machine: &Machine, notes: &mut Notes) {
        let base = &self.0.transport.base;
        if !base.is_this_machine() {
            return;
        }
        let address = match machine.address {
            Some(address) => Some(address),
            None => own_address().await,
        };
        let url = address.filter(|address| !address.is_loopback()).and_then(|address| base.at(address));
        let open = match url {
            Some(url) => self.0.transport.answers_at(url, Duration::from_secs(1)).await,
            None => false,
        };
        if open || base.binds_everywhere() {
            notes.warn(
                format!("Ollama listens on every interface, port {}, and has no authentication", base.port()),
                "set OLLAMA_HOST=127.0.0.1 in the ollama service, or close the port in the firewall",
            );
        }
    }

    /// Asks about three lines, as simply as possible.
    async fn probe(&self, model: &Model, notes: &mut Notes) {
        if let Err(error) = self.warm_up().await {
            return notes.bad(format!("the model cannot be loaded: {}", chain(&error)), "see `journalctl -u ollama`");
        }
        let started = Instant::now();
        match self.ask_probe(model).await {
            Ok(2) => {
                let seconds = started.elapsed().as_secs_f64();
                notes.good(format!("asked about three lines, it found the right one in {seconds:.1} s"));
            }
            Ok(row) => notes.warn(
                format!("asked about three lines, it chose line {row} instead of the out-of-memory kill"),
                "use a more capable model",
            ),
            Err(refusal) => notes.refused(refusal, &self.0.origin()),
        }
    }

    async fn ask_probe(&self, model: &Model) -> Result<u64, Refusal> {
        #[derive(Deserialize)]
        struct Probe {
            row: u64,
        }
        let schema: Value = json!({
            "type": "object", "required": ["row"],
            "properties": { "row": { "type": "integer", "minimum": 1, "maximum": 3 } },
        });
        let system =
            "You review server logs. Answer with one JSON object: {\"row\": number of the line that needs attention}.";
        let user = "1 info x40 0:00-4:58 | session opened for user backup\n\
                    2 critical [rule] x1 2:10 | Out of memory: Killed process 812 (postgres)\n\
                    3 info x12 0:05-4:50 | GET /health 200\nWhich line needs attention?";
        let messages = [Message { role: "system", content: system }, Message { role: "user", content: user }];
        let chat = Chat {
            model: &model.name,
            messages: &messages,
            stream: true,
            format: Some(&schema),
            options: Options {
                num_ctx: self.0.num_ctx(),
                num_predict: 200,
                temperature: 0.0,
                seed: 1,
                repeat_penalty: 1.0,
            },
            keep_alive: None,
            truncate: false,
            think: model.think(),
        };
        let body = serde_json::to_vec(&chat).unwrap_or_default();
        let minutes = Duration::from_secs(300);
        let patience = Patience { first: minutes, between: minutes, total: minutes };
        let started = Instant::now();
        let response = self.0.transport.stream("/api/chat", body, &model.name, patience.first).await?;
        let (allowed, mut received) = (self.0.allowed_cloud(), Received::default());
        let answer = ask::read(response, started, patience, PROBE_BYTES, &model.name, allowed, &mut received).await?;
        let probe = serde_json::from_str::<Probe>(&answer.content);
        probe
            .map(|probe| probe.row)
            .map_err(|_| Refusal::Answer("it does not keep to the form that was asked for".to_owned()))
    }
}

struct Notes(Vec<Note>);

impl Notes {
    fn add(&mut self, level: Level, what: String, hint: Option<&str>) {
        self.0.push(Note { level, what, hint: hint.map(str::to_owned) });
    }

    fn good(&mut self, what: String) {
        self.add(Level::Good, what, None);
    }

    fn warn(&mut self, what: String, hint: &str) {
        self.add(Level::Warning, what, Some(hint));
    }

    fn bad(&mut self, what: String, hint: &str) {
        self.add(Level::Bad, what, Some(hint));
    }

    fn refused(&mut self, refusal: Refusal, origin: &str) {
        use logwarden_core::classifier::ClassifyError;
        let error = refusal.into_error(origin);
        let hint = match &error {
            ClassifyError::Misconfigured { hint, .. } => hint.clone(),
            ClassifyError::Unavailable { .. } => Some("is Ollama running? `systemctl status ollama`".to_owned()),
            _ => None,
        };
        self.add(Level::Bad, chain(&error), hint.as_deref());
    }

    fn ok<T>(&mut self, result: Result<T, Refusal>, origin: &str) -> Option<T> {
        result.map_err(|refusal| self.refused(refusal, origin)).ok()
    }
}

/// The address under which this machine reaches others. Nothing is sent: a UDP socket only looks up the route.
async fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").await.ok()?;
    // TEST-NET-1, which nobody has.
    socket.connect(SocketAddr::from(([192, 0, 2, 1], 9))).await.ok()?;
    socket.local_addr().ok().map(|address| address.ip())
}

/// The installed models, by name.
fn names(installed: &[Entry]) -> String {
    let mut names: Vec<&str> = installed.iter().map(|entry| entry.name.as_str()).collect();
    names.sort_unstable();
    match names.len() {
        0..=8 => names.join(", "),
        more => format!("{} and {} more", names[..8].join(", "), more - 8),
    }
}
