//! `fold`: which templates a log consists of.

use std::{collections::BTreeMap, fmt::Write as _, io::Write as _};

use logwarden_config::SystemEnv;
use logwarden_core::{
    ProfileName,
    env::Env,
    error::chain,
    source::{Budget, LogSource, Seen},
};
use logwarden_file_source::zone;
use logwarden_notifiers::text::Clean;
use logwarden_templates::{Config, Line, Miner, Summary, Tallied, Tally, Timestamp, Zone};
use serde::Serialize;

use crate::{
    args::{Fold, TableFormat},
    failure::Failure,
    output::{self, amount, grouped},
    program, scan,
};

/// Lines read at once.
const PAGE: Budget = Budget { lines: 50_000, bytes: 64 << 20, now: Timestamp::from_secs(0) };

#[derive(Serialize)]
struct Row<'a> {
    template_id: String,
    count: u64,
    lines: u64,
    share: f64,
    first: String,
    last: String,
    template: &'a str,
}

/// Runs the command.
pub(crate) async fn fold(args: &Fold) -> Result<u8, Failure> {
    let zone = zone(None).unwrap_or(Zone::UTC);
    let source = logwarden_file_source::Scan::new(
        scan::inputs(&args.files)?,
        vec![ProfileName::general()],
        BTreeMap::new(),
        zone,
    );
    let budget = Budget { now: SystemEnv.now(), ..PAGE };
    let mut tally = Tally::new(Miner::new(Config { headerless: args.content, ..Config::default() }), false);
    let (mut cursor, mut incomplete) = (None, false);
    loop {
        let page = source
            .read(cursor.as_ref(), &Seen::default(), budget)
            .await
            .map_err(|error| Failure::failed("cannot go on reading").because(&error))?;
        tally.page(page.lines.iter().map(Line::record));
        for problem in &page.problems {
            incomplete = true;
            let mut err = std::io::stderr().lock();
            let _ = writeln!(err, "{}: {}: {}", program::name(), problem.subject, chain(&problem.error));
            if let Some(hint) = problem.error.hint() {
                let _ = writeln!(err, "  hint: {hint}");
            }
        }
        cursor = Some(page.next);
        if page.finished {
            break;
        }
    }
    let tallied = tally.finish();
    let text = match args.format {
        TableFormat::Text => table(&tallied, args.top),
        TableFormat::Csv => csv(&tallied, args.top),
        TableFormat::Json => json(&tallied, args.top),
    };
    output::write(text.as_bytes())?;
    Ok(u8::from(incomplete))
}

fn rows(tallied: &Tallied, top: Option<usize>) -> impl Iterator<Item = (&Summary, Row<'_>)> {
    let all: u64 = tallied.templates.iter().map(|template| template.lines).sum();
    tallied.templates.iter().take(top.unwrap_or(usize::MAX)).map(move |template| {
        let row = Row {
            template_id: template.root.to_string(),
            count: template.count,
            lines: template.lines,
            share: template.lines as f64 / all.max(1) as f64,
            first: template.first.to_string(),
            last: template.last.to_string(),
            template: &template.text,
        };
        (template, row)
    })
}

fn table(tallied: &Tallied, top: Option<usize>) -> String {
    let width = output::columns().map_or(2_000, |columns| columns.saturating_sub(62).max(40));
    let mut text = format!("{:>10}  {:>6}  {:<37}  {}\n", "count", "share", "first – last", "template");
    for (template, row) in rows(tallied, top) {
        let clean = Clean::log_line(row.template);
        let shown = clean.elided(width);
        let _ = writeln!(
            text,
            "{:>10}  {:>5.1}%  {} – {}  {}",
            grouped(row.count),
            row.share * 100.0,
            minute(template.first),
            minute(template.last),
            shown.as_str()
        );
    }
    let n = tallied.templates.len();
    let hidden = top.map_or(0, |top| n.saturating_sub(top));
    let more = if hidden > 0 { format!(" ({} not shown)", grouped(hidden as u64)) } else { String::new() };
    let _ = writeln!(
        text,
        "\n{} in {}{more}",
        amount(tallied.counts.read, "line", "lines"),
        amount(n as u64, "template", "templates")
    );
    text
}

fn minute(time: Timestamp) -> String {
    let text = time.to_string().replace('T', " ");
    format!("{}Z", text.get(..16).unwrap_or(&text))
}

fn csv(tallied: &Tallied, top: Option<usize>) -> String {
    let mut text = String::from("template_id,count,lines,share,first,last,template\n");
    for (_, row) in rows(tallied, top) {
        let _ = writeln!(
            text,
            "{},{},{},{:.6},{},{},\"{}\"",
            row.template_id,
            row.count,
            row.lines,
            row.share,
            row.first,
            row.last,
            row.template.replace('"', "\"\"")
        );
    }
    text
}

fn json(tallied: &Tallied, top: Option<usize>) -> String {
    let lines = rows(tallied, top).filter_map(|(_, row)| serde_json::to_string(&row).ok());
    lines.fold(String::new(), |text, line| text + &line + "\n")
}
