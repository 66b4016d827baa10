//! `backfill`: learns what is normal from Loki's past.

use std::{sync::Arc, time::Duration};

use logwarden_core::{
    error::chain,
    pipeline::{Backfill, BackfillEnd, Pipeline},
};
use tracing::{info, warn};

use crate::{
    alive,
    args::Common,
    failure::Failure,
    output::{self, amount},
    program, setup, stop,
};

/// How long to wait for a pass that is under way.
const PATIENCE: Duration = Duration::from_secs(180);

/// Learns the last `since` of Loki, as far as it was not read already.
pub(crate) async fn backfill(common: &Common, since: Duration) -> Result<u8, Failure> {
    let setup = setup::load(common)?;
    let Some(config) = &setup.config.loki else {
        return Err(Failure::usage("there is no Loki to learn from").hint("set LOKI_URL, or a [loki] table"));
    };
    let state_dir = setup::state_dir(common, Some(&setup.config))?;
    let wired = setup.wire(Some(&state_dir), true).await?;
    let _alive = alive::take_over(&wired.pipeline, &state_dir).await;
    let Some(source) = wired.loki.as_ref().map(|loki| logwarden_core::source::LogSource::id(&**loki).clone()) else {
        return Err(Failure::usage("there is no Loki to learn from"));
    };
    let state = |error: &dyn std::error::Error| Failure::failed("cannot use the state").because(error);
    let first_read = config.window + config.settle;
    let past = wired.pipeline.past(&source, since, first_read).await.map_err(|error| state(&error))?;
    if past.done {
        output::write(format!("learned already: {} to {}\n", past.from, past.to).as_bytes())?;
        return Ok(0);
    }
    if past.from >= past.to {
        output::write(b"nothing to learn: everything since then was read as usual\n")?;
        return Ok(0);
    }
    info!(from = %past.from, to = %past.to, "backfill starts; nothing is alerted");
    let reader = logwarden_config::past_of_loki(config, Pipeline::past_of(&source), past.to.since(past.from))?;
    let whole = past.to.since(past.from).as_secs_f64().max(1.0);
    let progress = |report: &Backfill| {
        let done = report.reached.map_or(0.0, |reached| reached.since(past.from).as_secs_f64() / whole);
        let percent = (100.0 * done.clamp(0.0, 1.0)) as u32;
        info!(percent, lines = report.lines, templates = report.templates, "learned");
    };
    let work = wired.pipeline.backfill(&source, Arc::new(reader), past, PATIENCE, &progress);
    let (report, end) = tokio::select! {
        done = work => done.map_err(|error| state(&error))?,
        () = stop::asked() => {
            if let Err(error) = wired.pipeline.disown().await {
                warn!(error = %chain(&error), "the source could not be given back; the next pass takes it over");
            }
            warn!("stopped before the end; nothing is lost, `{}` goes on from here", program::command("backfill"));
            return Ok(1);
        }
    };
    let again = format!("run `{}` again: it goes on from here", program::command("backfill"));
    match end {
        BackfillEnd::Done => {
            let lines = amount(report.lines, "line", "lines");
            let templates = amount(report.templates, "template", "templates");
            output::write(
                format!("learned {lines} in {templates}: what is new and unusual is known now\n").as_bytes(),
            )?;
            Ok(0)
        }
        BackfillEnd::Busy => {
            Err(Failure::failed("another backfill is under way").hint(format!("when that one has ended, {again}")))
        }
        BackfillEnd::Occupied => {
            let hint = format!("stop `watch` for a moment and {again}");
            Err(Failure::failed("all is read, but another process keeps reading this source").hint(hint))
        }
        BackfillEnd::Failed { reason, hint } => {
            Err(Failure::failed(format!("cannot read the past: {reason}")).hint(hint.unwrap_or(again)))
        }
    }
}
