//! logwarden inside a program of one's own: `cargo run -p logwarden-tests --example embed -- FILE`.
use std::{collections::BTreeMap, error::Error, io, path::PathBuf, sync::Arc, time::Duration};

use logwarden_config::SystemEnv;
use logwarden_core::{ProfileName, Severity, detectors::Settings, env::Env, pipeline::Pipeline};
use logwarden_file_source::{Input, Scan, zone};
use logwarden_notifiers::{Style, Terminal};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let file = std::env::args().nth(1).unwrap_or_else(|| "examples/auth.log".to_owned());
    // Any `LogSource` and `Notifier` will do; without a `Classifier` the detectors work alone, without a `Ledger` and a
    // `DedupStore` state is in memory.
    let source =
        Scan::new(vec![Input::File(PathBuf::from(file))], vec![ProfileName::general()], BTreeMap::new(), zone(None)?);
    let terminal = Terminal::new("terminal", Box::new(io::stdout()), Style::default(), Severity::Low);
    let env = Arc::new(SystemEnv);
    let pipeline = Pipeline::builder()
        .env(env.clone())
        .source(Arc::new(source))
        .notifier(Arc::new(terminal))
        .detector_settings(Settings { self_relative: true, ..Settings::default() })
        .build()?;
    pipeline.pass(env.now().plus(Duration::from_secs(60))).await?;
    Ok(())
}
