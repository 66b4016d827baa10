//! Asks a local model about a few lines, without a pipeline:
//! `journalctl -n 500 -o short-iso | cargo run -p logwarden-tests --example classify_lines -- [OLLAMA_HOST] [PROFILE]`.
use std::{collections::HashSet, error::Error, io::Read, io::Write, sync::Arc};

use logwarden_config::SystemEnv;
use logwarden_core::{
    ProfileName, Stream,
    classifier::Classifier,
    detectors::{Memory, RuleSet, Settings, detect},
    env::Env,
    grounding::Floors,
    plan::{Material, plan},
    profile::Profile,
    segment::SegmentRow,
    templates::{Carry, Clock, End, FoldOptions, Miner, Record},
};
use logwarden_ollama_client::{BaseUrl, Ollama};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let ollama =
        Ollama::builder(BaseUrl::parse(&arguments.next().unwrap_or_default())?, Arc::new(SystemEnv)).build()?;
    let profile = ProfileName::new(arguments.next().unwrap_or_else(|| "general".to_owned()));
    let profile = Arc::new(Profile::named(&profile).ok_or("general, security or performance")?);
    let mut text = Vec::new();
    std::io::stdin().read_to_end(&mut text)?;

    // Lines become rows: a template each, with how often and when, and samples.
    let (now, stream) = (SystemEnv.now(), Arc::new(Stream::new([("host".to_owned(), "here".to_owned())].into())));
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let records = lines.map(|text| Record { stream: &stream, time: now, clock: Clock::Arrival, text, tags: 1 });
    let options = FoldOptions { end: End::Closed, assign: false };
    let delta = Miner::new(Default::default()).fold(Carry::default(), records, options);
    let settings = Settings { self_relative: true, ..Settings::default() };
    let signals = detect(&delta, &Memory::default(), &RuleSet::builtin(), &settings, now).signals;
    let row = |row| Arc::new(SegmentRow { row, before: Vec::new(), after: Vec::new() });
    let rows: Vec<_> = delta.rows.into_iter().map(row).collect();
    let numbers: Vec<u32> = (0..).take(rows.len()).collect();
    let (floors, benign) = (Floors::new(&Arc::from(""), []), HashSet::new());
    let material = Material {
        profile: &profile,
        rows: &rows,
        of_profile: &numbers,
        signals: &signals,
        floors: &floors,
        benign: &benign,
    };

    // Rows become as many questions as fit the model, worst first; answers cite rows, and only rows that exist.
    let mut out = std::io::stdout().lock();
    for digest in plan(&material, ollama.capacity()).digests {
        let judgement = ollama.classify(&digest).await?;
        for finding in judgement.verdict.findings {
            writeln!(out, "{} {}: {}", finding.severity, finding.category, finding.title)?;
            for sample in finding.rows.iter().filter_map(|row| digest.rows.get(*row as usize)?.row.row.samples.first())
            {
                writeln!(out, "    {}", String::from_utf8_lossy(&sample.text))?;
            }
        }
        writeln!(out, "{} ({})", judgement.verdict.summary, judgement.usage.model)?;
    }
    Ok(())
}
