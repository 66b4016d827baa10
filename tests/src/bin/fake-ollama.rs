//! A fake Ollama to try logwarden without a model: `fake-ollama --listen 127.0.0.1:11434 --behaviour honest`.

use std::{path::PathBuf, time::Duration};

use clap::{Parser, ValueEnum};
use logwarden_tests::ollama::{Behaviour, Config, Delays, FakeOllama, Model};

/// Answers like Ollama, with a script instead of a model.
#[derive(Debug, Parser)]
struct Arguments {
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.1:11434")]
    listen: String,
    /// The model that is installed; may be repeated.
    #[arg(long, default_value = "qwen3:4b-instruct")]
    model: Vec<String>,
    /// How it answers.
    #[arg(long, value_enum, default_value_t = Kind::Honest)]
    behaviour: Kind,
    /// The answer's text, for `--behaviour fixed`.
    #[arg(long, required_if_eq("behaviour", "fixed"))]
    answer: Option<PathBuf>,
    /// Takes the native way: a prompt that is too long is refused, properties are sorted.
    #[arg(long)]
    native: bool,
    /// Milliseconds for loading.
    #[arg(long, default_value_t = 0)]
    load_ms: u64,
    /// Milliseconds for reading a prompt.
    #[arg(long, default_value_t = 0)]
    prompt_ms: u64,
    /// Milliseconds for each token of an answer.
    #[arg(long, default_value_t = 0)]
    token_ms: u64,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    /// One finding for each row with a measured signal.
    Honest,
    /// Never a finding.
    Quiet,
    /// Does what text in the log says.
    Obedient,
    /// As honest, in other words each time.
    Reworder,
    /// Always the text of a file.
    Fixed,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let arguments = Arguments::parse();
    let behaviour = match arguments.behaviour {
        Kind::Honest => Behaviour::Honest,
        Kind::Quiet => Behaviour::Quiet,
        Kind::Obedient => Behaviour::Obedient,
        Kind::Reworder => Behaviour::Reworder,
        Kind::Fixed => Behaviour::Fixed(std::fs::read_to_string(arguments.answer.unwrap_or_default())?),
    };
    let model = |name: &String| {
        let model = Model::new(name, behaviour.clone());
        if arguments.native { model.native() } else { model }
    };
    let millis = Duration::from_millis;
    let config = Config {
        models: arguments.model.iter().map(model).collect(),
        delays: Delays {
            load: millis(arguments.load_ms),
            prompt: millis(arguments.prompt_ms),
            token: millis(arguments.token_ms),
        },
        ..Config::default()
    };
    let ollama = FakeOllama::listen(&arguments.listen, config).await?;
    #[expect(clippy::print_stderr, reason = "the program's only output")]
    {
        eprintln!("fake Ollama at {} with {}", ollama.url(), arguments.model.join(", "));
    }
    std::future::pending().await
}
