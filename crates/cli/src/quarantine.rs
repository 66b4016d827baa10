//! `quarantine`: what was sent and could not be read.

use std::{fmt::Write as _, sync::Arc};

use logwarden_config::SystemEnv;
use logwarden_core::{Timestamp, ledger::LedgerError};
use logwarden_notifiers::text::Clean;
use logwarden_push_source::{Kept, Quarantine, Replayed};
use serde::Serialize;

use crate::{
    args::{Common, Format, Quarantined},
    failure::Failure,
    output::{self, amount, grouped},
    program, setup,
};

/// Bodies that are listed at most: as many as are kept.
const MOST: usize = 1_000;
/// How much of a body is shown.
const SHOWN: usize = 4_000;

/// A body as JSON.
#[derive(Serialize)]
struct Row<'a> {
    number: u64,
    at: String,
    sender: &'a str,
    sent_as: &'a str,
    bytes: u64,
    kept_bytes: usize,
    reason: &'a str,
}

fn row(kept: &Kept) -> Row<'_> {
    let Kept { number, at, sender, reason, body, bytes, sent_as } = kept;
    Row { number: *number, at: at.to_string(), sender, sent_as, bytes: *bytes, kept_bytes: body.len(), reason }
}

/// Runs the command.
pub(crate) async fn quarantine(common: &Common, command: Option<&Quarantined>) -> Result<u8, Failure> {
    let quarantine = Quarantine::new(setup::ledger(common)?, Arc::new(SystemEnv));
    match command {
        None => list(&quarantine, Format::Text).await,
        Some(Quarantined::List { format }) => list(&quarantine, *format).await,
        Some(Quarantined::Show { number, raw }) => show(&quarantine, *number, *raw).await,
        Some(Quarantined::Replay { numbers, all, as_text }) => {
            let numbers = chosen(&quarantine, numbers, *all).await?;
            replay(&quarantine, &numbers, *as_text).await
        }
        Some(Quarantined::Remove { numbers, all }) => {
            let numbers = chosen(&quarantine, numbers, *all).await?;
            let removed = quarantine.remove(&numbers).await.map_err(|error| unusable(&error))?;
            output::write(format!("{} removed\n", amount(removed, "body", "bodies")).as_bytes())?;
            Ok(0)
        }
    }
}

fn unusable(error: &LedgerError) -> Failure {
    Failure::failed("cannot use the state").because(error)
}

fn missing(number: u64) -> Failure {
    Failure::usage(format!("nothing with the number {number} is in quarantine"))
        .hint(format!("`{}` lists them", program::command("quarantine")))
}

async fn chosen(quarantine: &Quarantine, numbers: &[u64], all: bool) -> Result<Vec<u64>, Failure> {
    if !all {
        return Ok(numbers.to_vec());
    }
    let kept = quarantine.list(MOST).await.map_err(|error| unusable(&error))?;
    // In the order in which they came.
    Ok(kept.iter().rev().map(|kept| kept.number).collect())
}

async fn list(quarantine: &Quarantine, format: Format) -> Result<u8, Failure> {
    let all = quarantine.list(MOST).await.map_err(|error| unusable(&error))?;
    let mut text = String::new();
    if format == Format::Json {
        for line in all.iter().filter_map(|kept| serde_json::to_string(&row(kept)).ok()) {
            let _ = writeln!(text, "{line}");
        }
        output::write(text.as_bytes())?;
        return Ok(0);
    }
    if all.is_empty() {
        output::write(b"nothing: everything that was sent could be read\n")?;
        return Ok(0);
    }
    let _ = writeln!(text, "{:>7}  {:<17} {:<20} {:>11}  what was wrong", "number", "came", "from", "bytes");
    for kept in &all {
        let at = kept.at.to_string().replace('T', " ");
        let _ = writeln!(
            text,
            "{:>7}  {:<17} {:<20} {:>11}  {}",
            kept.number,
            format!("{}Z", at.get(..16).unwrap_or(&at)),
            Clean::line(&kept.sender).elided(20).as_str(),
            grouped(kept.bytes),
            Clean::line(&kept.reason).elided(160).as_str()
        );
    }
    let _ = writeln!(
        text,
        "\n{} shows one, {} reads one again",
        program::command("quarantine show NUMBER"),
        program::command("quarantine replay NUMBER")
    );
    output::write(text.as_bytes())?;
    Ok(0)
}

async fn show(quarantine: &Quarantine, number: u64, raw: bool) -> Result<u8, Failure> {
    let kept = quarantine.read(number).await.map_err(|error| unusable(&error))?.ok_or_else(|| missing(number))?;
    if raw {
        output::write(&kept.body)?;
        return Ok(0);
    }
    let mut text = String::new();
    let bytes = amount(kept.bytes, "byte", "bytes");
    for (name, value) in [
        ("from", Clean::line(&kept.sender).elided(200).as_str()),
        ("came", &Timestamp::from_secs(kept.at.secs()).to_string()),
        ("as", &format!("{}, {bytes}", Clean::line(&kept.sent_as).elided(200).as_str())),
        ("wrong", Clean::line(&kept.reason).elided(1_000).as_str()),
    ] {
        let _ = writeln!(text, "{name:<6} {value}");
    }
    let shown = &kept.body[..kept.body.len().min(SHOWN)];
    let _ = writeln!(text, "\n{}", Clean::line(&shown.escape_ascii().to_string()).as_str());
    if (shown.len() as u64) < kept.bytes {
        let of = (grouped(shown.len() as u64), grouped(kept.body.len() as u64));
        let _ = writeln!(text, "\nthe first {} bytes; --raw writes all {} that are kept", of.0, of.1);
    }
    output::write(text.as_bytes())?;
    Ok(0)
}

async fn replay(quarantine: &Quarantine, numbers: &[u64], as_text: bool) -> Result<u8, Failure> {
    let (mut text, mut failed) = (String::new(), false);
    for number in numbers {
        let replayed = quarantine.replay(*number, as_text).await.map_err(|error| match error {
            LedgerError::Full { .. } => {
                unusable(&error).hint("the receiver has not folded what waits; try again later")
            }
            error => unusable(&error),
        })?;
        match replayed {
            Replayed::Spooled { lines } => {
                let _ = writeln!(text, "✓ {number}: {} wait for the receiver", amount(lines, "line", "lines"));
            }
            Replayed::Unreadable { reason } => {
                failed = true;
                let reason = Clean::line(&reason);
                let _ = writeln!(text, "✗ {number}: still cannot be read: {}", reason.elided(300).as_str());
            }
            _ => {
                failed = true;
                let _ = writeln!(text, "✗ {number}: there is no such body");
            }
        }
    }
    if failed && !as_text {
        let _ = writeln!(text, "\n--as-text takes every line of it as it is");
    }
    if numbers.is_empty() {
        text.push_str("there is nothing to replay\n");
    }
    output::write(text.as_bytes())?;
    Ok(u8::from(failed))
}
