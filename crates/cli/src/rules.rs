//! `rules test`: whether rules of one's own can be used, and what they say about a log.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fmt::Write as _,
    fs,
    path::Path,
};

use logwarden_config::SystemEnv;
use logwarden_core::{
    ProfileName,
    detectors::RuleSet,
    env::Env,
    error::chain,
    source::{Budget, LogSource, Seen},
    templates::Zone,
};
use logwarden_notifiers::text::Clean;

use crate::{args::RulesTest, failure::Failure, output, reading};

struct Hits {
    effect: String,
    lines: u64,
    first: String,
    captures: Vec<(String, String)>,
}

/// Runs `rules test`.
pub(crate) async fn test(args: &RulesTest) -> Result<u8, Failure> {
    let name = args.rules.display().to_string();
    let rules = load(&args.rules, &name)?;
    let own: Vec<_> = rules.rules().filter(|rule| rule.file == name).collect();
    let mut text = format!("{name}: {}, every example fits\n", output::amount(own.len() as u64, "rule", "rules"));
    for rule in &own {
        let _ = writeln!(text, "  {:<30} {:<9} {}", rule.id, rule.severity.as_str(), rule.profile);
    }
    let mut incomplete = false;
    if !args.logs.is_empty() {
        let mut hits: BTreeMap<String, Hits> = BTreeMap::new();
        let source = logwarden_file_source::Scan::new(
            reading::inputs(&args.logs)?,
            vec![ProfileName::general()],
            BTreeMap::new(),
            Zone::UTC,
        );
        let budget = Budget { lines: 50_000, bytes: 64 << 20, now: SystemEnv.now() };
        let mut cursor = None;
        loop {
            let page = source
                .read(cursor.as_ref(), &Seen::default(), budget)
                .await
                .map_err(|error| Failure::failed("cannot go on reading").because(&error))?;
            for problem in &page.problems {
                incomplete = true;
                let _ = writeln!(text, "! {}", Clean::line(&chain(&problem.error)).as_str());
            }
            for line in &page.lines {
                count(&rules, &String::from_utf8_lossy(&line.text), &mut hits);
            }
            cursor = Some(page.next);
            if page.finished {
                break;
            }
        }
        text.push_str(if hits.is_empty() { "\nno rule fits any line\n" } else { "\n" });
        for (id, hits) in &hits {
            let lines = output::amount(hits.lines, "line", "lines");
            let _ = writeln!(text, "{id}: {lines}, {}", hits.effect);
            let _ = writeln!(text, "  first: {}", Clean::log_line(&hits.first).elided(300).as_str());
            for (group, value) in &hits.captures {
                let _ = writeln!(text, "  {group} = {}", Clean::line(value).elided(200).as_str());
            }
        }
    }
    output::write(text.as_bytes())?;
    Ok(u8::from(incomplete))
}

fn load(path: &Path, name: &str) -> Result<RuleSet, Failure> {
    let content = fs::read_to_string(path).map_err(|error| {
        Failure::usage(format!("cannot read {name}"))
            .because(&error)
            .hint("name a file of rules, then logs to try them on")
    })?;
    RuleSet::with_files([(name, content.as_str())]).map_err(|error| {
        Failure::usage("the rules cannot be used").because(&error).hint("docs/detection.md shows how rules are written")
    })
}

fn count(rules: &RuleSet, line: &str, hits: &mut BTreeMap<String, Hits>) {
    for found in rules.matches(line) {
        match hits.entry(found.rule.id.clone()) {
            Entry::Occupied(mut known) => known.get_mut().lines += 1,
            Entry::Vacant(free) => {
                let hits = Hits { effect: found.effect, lines: 1, first: line.to_owned(), captures: found.captures };
                free.insert(hits);
            }
        }
    }
}
